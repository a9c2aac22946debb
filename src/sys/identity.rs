//! Another user and group, for good.
//!
//! # The trap
//! A change of user leaves more behind than it takes: supplementary groups, saved ids, capabilities of
//! a process that was not root, and programs with the setuid bit. So each of them is given up, and what
//! the kernel says afterwards is compared with what was wanted.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A user and a group to become, found by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: Option<Uid>,
    gid: Option<Gid>,
    name: Option<CString>,
}

impl Identity {
    /// Looks both up; an empty text stands for no change. A user without an entry of its own has the
    /// group of the same number, unless one is named.
    ///
    /// # Errors
    /// Which of the two is not known, in words.
    pub(crate) fn find(user: &str, group: &str) -> Result<Self, String> {
        let mut identity = Self { uid: None, gid: None, name: None };
        if !user.is_empty() {
            let by_number =
                || user.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok()?);
            match User::from_name(user).ok().flatten().or_else(by_number) {
                Some(found) => {
                    identity.uid = Some(found.uid);
                    identity.gid = Some(found.gid);
                    identity.name = CString::new(found.name).ok();
                }
                // A number needs no name: containers often run as users that no file lists.
                None => match user.parse::<u32>() {
                    Ok(number) if number != UNCHANGED => {
                        identity.uid = Some(Uid::from_raw(number));
                        identity.gid = Some(Gid::from_raw(number));
                    }
                    Ok(_) | Err(_) => return Err(format!("user: no user is called {user:?}")),
                },
            }
        }
        if !group.is_empty() {
            let named = Group::from_name(group).ok().flatten().map(|found| found.gid);
            let number = group.parse().ok().filter(|number| *number != UNCHANGED);
            let gid = named.or_else(|| number.map(Gid::from_raw));
            identity.gid = Some(gid.ok_or_else(|| format!("group: no group is called {group:?}"))?);
        }
        Ok(identity)
    }

    /// Its user and group, where it has one.
    pub(crate) fn ids(&self) -> (Option<u32>, Option<u32>) {
        (self.uid.map(Uid::as_raw), self.gid.map(Gid::as_raw))
    }

    /// Returns true if its user is another one than this process's.
    pub(crate) fn is_another(&self) -> bool {
        self.uid.is_some_and(|uid| uid != nix::unistd::geteuid())
    }

    /// Becomes it, and proves it. First the groups, then the user, which may not change groups any
    /// more; last what a user that is not root may still have: capabilities, and programs that would
    /// give it others.
    ///
    /// # Errors
    /// The errors of setgroups(2), setresgid(2), setresuid(2), capset(2) or prctl(2); `PermissionDenied`
    /// where the kernel reports another identity than was wanted, or root can be had again. The process
    /// must not go on then.
    pub(crate) fn assume(&self) -> io::Result<()> {
        if self.is_assumed()? {
            return self.uid.map_or(Ok(()), give_up_privileges);
        }
        let groups = self.groups()?;
        if let Some(gid) = self.gid {
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setresgid(gid, gid, gid)?;
        }
        if let Some(uid) = self.uid {
            // Where they can be bounded at all: a capability of its own is needed for that.
            bound_capabilities();
            nix::unistd::setresuid(uid, uid, uid)?;
            give_up_privileges(uid)?;
        }
        self.prove(&groups)
    }

    /// Opens files as it from now on, and gives up every capability. The other ids stay: processes of
    /// this user can neither signal nor trace nor slow this one.
    ///
    /// # Errors
    /// As [`Identity::assume`]. The process must not go on then.
    pub(crate) fn assume_for_files(&self) -> io::Result<()> {
        if self.is_assumed()? {
            return self.uid.map_or(Ok(()), give_up_privileges);
        }
        if let Some(gid) = self.gid {
            nix::unistd::setgroups(&self.groups()?)?;
            nix::unistd::setfsgid(gid);
            if nix::unistd::setfsgid(Gid::from_raw(UNCHANGED)) != gid {
                return Err(denied("the kernel reports another group for files than was set"));
            }
        }
        if let Some(uid) = self.uid {
            bound_capabilities();
            nix::unistd::setfsuid(uid);
            if file_user() != uid.as_raw() {
                return Err(denied("the kernel reports another user for files than was set"));
            }
            give_up_privileges(uid)?;
        }
        Ok(())
    }

    /// Returns true if this process has nothing to change, and could not: it is this user and group
    /// already, and not root.
    fn is_assumed(&self) -> io::Result<bool> {
        let uids = nix::unistd::getresuid()?;
        let gids = nix::unistd::getresgid()?;
        let is_user =
            |uid: Uid| [uids.real, uids.effective, uids.saved].iter().all(|other| *other == uid);
        let is_group =
            |gid: Gid| [gids.real, gids.effective, gids.saved].iter().all(|other| *other == gid);
        let may_change = has_effective(CapabilitySet::SETGID | CapabilitySet::SETUID);
        Ok(self.uid.is_none_or(is_user) && self.gid.is_none_or(is_group) && !may_change)
    }

    /// Every group that the user has.
    fn groups(&self) -> io::Result<Vec<Gid>> {
        match (&self.name, self.gid) {
            (Some(name), Some(gid)) => Ok(nix::unistd::getgrouplist(name, gid)?),
            (None, Some(gid)) => Ok(vec![gid]),
            (_, None) => Ok(nix::unistd::getgroups()?),
        }
    }

    /// Compares what the kernel reports with what was wanted, and tries to be root again.
    fn prove(&self, groups: &[Gid]) -> io::Result<()> {
        let uids = nix::unistd::getresuid()?;
        let gids = nix::unistd::getresgid()?;
        let is_user =
            |uid: Uid| [uids.real, uids.effective, uids.saved].iter().all(|other| *other == uid);
        let is_group =
            |gid: Gid| [gids.real, gids.effective, gids.saved].iter().all(|other| *other == gid);
        let mut has = nix::unistd::getgroups()?;
        let mut wanted = groups.to_vec();
        for list in [&mut has, &mut wanted] {
            list.sort_unstable_by_key(|gid| gid.as_raw());
            list.dedup();
        }
        if !self.uid.is_none_or(is_user) || !self.gid.is_none_or(is_group) || has != wanted {
            return Err(denied("the kernel reports another user or other groups than were set"));
        }
        let Some(uid) = self.uid.filter(|uid| !uid.is_root()) else { return Ok(()) };
        let root = Uid::from_raw(0);
        let keep = Uid::from_raw(UNCHANGED);
        let regained = nix::unistd::setresuid(root, root, root).is_ok()
            || nix::unistd::setresuid(keep, root, keep).is_ok()
            || (self.gid != Some(Gid::from_raw(0))
                && nix::unistd::setgid(Gid::from_raw(0)).is_ok());
        if regained || Uid::effective() != uid {
            return Err(denied("root could be regained"));
        }
        Ok(())
    }
}

/// The user whose right to open files this process has (credentials(7), the filesystem ids).
pub(crate) fn file_user() -> u32 {
    nix::unistd::setfsuid(Uid::from_raw(UNCHANGED)).as_raw()
}

/// The id that setresuid(2) and its like take for "leave it as it is".
const UNCHANGED: u32 = u32::MAX;

fn denied(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Returns true if one of these capabilities is in force.
fn has_effective(wanted: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.intersects(wanted))
}

/// No program that this process executes can have capabilities that this one has not.
fn bound_capabilities() {
    for capability in CapabilitySet::all().iter() {
        // It takes CAP_SETPCAP, and the kernel may not know each of them: `no_new_privs` holds anyway.
        let _unbounded = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

/// Gives up what a user that is not root may have besides its ids. root keeps what it has.
fn give_up_privileges(uid: Uid) -> io::Result<()> {
    if uid.is_root() {
        return Ok(());
    }
    rustix::thread::set_no_new_privs(true)?;
    // A kernel without ambient capabilities has none to give up.
    let _none = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    let has = rustix::thread::capabilities(None)?;
    if !has.effective.is_empty() || !has.permitted.is_empty() || !has.inheritable.is_empty() {
        return Err(denied("capabilities are left"));
    }
    Ok(())
}

/// Files that this thread makes belong to another user and group until this is dropped
/// (credentials(7), the filesystem ids).
pub(crate) struct FileOwner {
    before: (Uid, Gid),
}

impl FileOwner {
    /// Root keeps its right to write into every folder. Without privilege nothing changes.
    pub(crate) fn become_it(uid: Option<u32>, gid: Option<u32>) -> Self {
        let before = (Uid::effective(), Gid::effective());
        if (uid, gid) == (None, None) {
            return Self { before };
        }
        nix::unistd::setfsgid(gid.map_or(before.1, Gid::from_raw));
        nix::unistd::setfsuid(uid.map_or(before.0, Uid::from_raw));
        // A change from root's filesystem id takes those capabilities that are about files.
        raise_permitted();
        Self { before }
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        nix::unistd::setfsuid(self.before.0);
        nix::unistd::setfsgid(self.before.1);
    }
}

/// Makes effective what is permitted. Where that fails, an operation that needs it does, too.
fn raise_permitted() {
    if let Ok(sets) = rustix::thread::capabilities(None) {
        let sets = CapabilitySets { effective: sets.permitted, ..sets };
        let _as_before = rustix::thread::set_capabilities(None, sets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_an_entry_have_their_own_group() {
        let identity = Identity::find("54321", "").unwrap();
        assert_eq!(identity.uid.map(Uid::as_raw), Some(54321));
        assert_eq!(identity.gid.map(Gid::as_raw), Some(54321));
        let identity = Identity::find("54321", "7").unwrap();
        assert_eq!(identity.gid.map(Gid::as_raw), Some(7));
    }

    #[test]
    fn unknown_names_and_the_id_of_no_user_are_refused() {
        for name in ["nobody-by-that-name", "4294967295", "-1", "4294967296"] {
            Identity::find(name, "").expect_err("there is none");
            Identity::find("", name).expect_err("there is none");
        }
    }
}
