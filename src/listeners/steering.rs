//! Which slots new connections are sent to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Listeners, Sockets};
use crate::ids::SlotSet;
use crate::sys::filter;

impl Listeners {
    /// Sends new connections to these slots only, as far as the kernel lets us.
    ///
    /// # Errors
    /// The error of setsockopt(2). Nothing is lost then but evenness.
    pub(crate) fn steer(&self, slots: &SlotSet) -> io::Result<()> {
        let members: Vec<u32> = slots.iter().map(|slot| u32::from(slot.number())).collect();
        // Where it fails at one address the others are steered all the same.
        let steered = self.open_addresses().filter_map(|(_, address)| match &address.sockets {
            Sockets::PerSlot(sockets) => Some(steer(sockets.first()?.as_fd(), &members)),
            Sockets::Shared(_) => None,
        });
        steered.fold(Ok(()), Result::and)
    }
}

/// Steers one address. Where that fails it is not known where the program before it sends them by now: the
/// kernel's own choice takes its place.
pub(super) fn steer(member: BorrowedFd<'_>, members: &[u32]) -> io::Result<()> {
    filter::steer(member, members).inspect_err(|_| {
        // There may be none.
        let _none = filter::unsteer(member);
    })
}
