//! A network with a round trip of its own length, in a namespace of its own.
//!
//! What is sent to [`FAR`] leaves through a device that this program holds the other end of. Each
//! packet is kept for half a round trip and comes back with its two addresses exchanged: so the server
//! at [`NEAR`] seems to be at `FAR` for its clients, who seem to be there for the server. A checksum
//! does not change when what it sums up is exchanged.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tappers::{AddAddress, AddAddressV4, AddressInfo, DeviceState, Tun};

/// Where the server listens.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Where its clients find it.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Set in the copy of this program that runs in the namespace.
const INSIDE: &str = "FERRICORN_TEST_INSIDE";

/// Returns true if this is the copy of the program that runs in a namespace.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of this name in a network namespace of its own: answers true there, and false outside
/// when it has passed there. Where the machine has no such namespaces it says so and answers false.
#[expect(clippy::print_stdout, reason = "what was not tested must be said")]
pub(crate) fn enter_network(test: &str) -> bool {
    if is_inside() {
        return true;
    }
    let flags = if nix::unistd::geteuid().is_root() { "-n" } else { "-Urn" };
    let possible = Command::new("unshare").args([flags, "ip", "link", "set", "lo", "up"]).output();
    if !possible.is_ok_and(|possible| possible.status.success()) {
        println!("{test} is not tested: `unshare {flags}` cannot be had here");
        return false;
    }
    let this = std::env::current_exe().expect("this program has a path");
    let run = Command::new("unshare")
        .arg(flags)
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("it has worked before");
    let said = [run.stdout, run.stderr].concat();
    println!("{}", String::from_utf8_lossy(&said));
    assert!(run.status.success(), "{test} has failed in its namespace");
    assert!(String::from_utf8_lossy(&said).contains("1 passed"), "{test} is the name of no test");
    false
}

/// Makes the network of this namespace: from now on packets to [`FAR`] take this long there and back.
///
/// # Errors
/// The system's word where it has no such devices.
pub(crate) fn stretch(round_trip: Duration) -> std::io::Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    assert!(up.success(), "the namespace is ours");
    let mut device = Tun::new()?;
    let mut address = AddAddressV4::new(NEAR);
    address.set_netmask(24);
    device.add_addr(AddAddress::from(address))?;
    device.set_state(DeviceState::Up)?;
    let here = |info: &AddressInfo| info.address() == IpAddr::V4(NEAR);
    assert!(device.addrs()?.iter().any(here), "the address is set");
    let device = Arc::new(device);
    let (sender, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
    let reader = Arc::clone(&device);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = reader.recv(&mut buffer) {
            let mut packet = buffer[..length].to_vec();
            if packet.len() < 20 || packet[0] >> 4 != 4 {
                continue;
            }
            let (source, destination) = packet[12..20].split_at_mut(4);
            source.swap_with_slice(destination);
            if sender.send((Instant::now() + round_trip / 2, packet)).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, packet) in packets {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A packet that is lost is sent again by whoever has sent it.
            let _lost = device.send(&packet);
        }
    });
    Ok(())
}
