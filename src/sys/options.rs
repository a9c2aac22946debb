//! Options of a listening socket that any process which has it may set: they keep clients out, or slow down
//! the connections that are accepted from it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::libc;

use super::socket;

/// Bytes of the longest value that is compared.
const VALUE_MAX: usize = 64;

// Not in every C library's headers; the same in the kernel's on each architecture that we build for.
const SO_GET_FILTER: libc::c_int = 26;
const SO_LOCK_FILTER: libc::c_int = 44;
const SO_MAX_PACING_RATE: libc::c_int = 47;
const IPV6_MINHOPCOUNT: libc::c_int = 73;
const TCP_ULP: libc::c_int = 31;

/// Level and number of each option that is compared with that of a socket which no process has touched.
const OPTIONS: [(libc::c_int, libc::c_int); 39] = [
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, SO_MAX_PACING_RATE),
    (libc::SOL_SOCKET, SO_LOCK_FILTER),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_MINTTL),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_OPTIONS),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_TCP, libc::TCP_SAVE_SYN),
    (libc::IPPROTO_TCP, TCP_ULP),
];

/// Returns true if one of these TCP listeners of one address has an option that it was not opened with.
///
/// # Errors
/// The error of socket(2).
pub(crate) fn are_altered<'a>(
    mut listeners: impl Iterator<Item = BorrowedFd<'a>>,
    address: SocketAddr,
) -> io::Result<bool> {
    let fresh = socket::unbound(address)?;
    Ok(listeners.any(|listener| has_filter(listener) || differs(listener, fresh.as_fd())))
}

fn differs(listener: BorrowedFd<'_>, fresh: BorrowedFd<'_>) -> bool {
    OPTIONS.into_iter().any(|option| value(listener, option) != value(fresh, option))
}

/// Returns true if a program judges what comes in (socket(7), `SO_ATTACH_FILTER`).
fn has_filter(listener: BorrowedFd<'_>) -> bool {
    // With no room for it the kernel returns the number of its instructions, but refuses to tell of one in
    // the extended language.
    get(listener.as_raw_fd(), libc::SOL_SOCKET, SO_GET_FILTER, &mut []).ok() != Some(0)
}

/// `None` where a socket of its family does not have the option.
fn value(
    socket: BorrowedFd<'_>,
    option: (libc::c_int, libc::c_int),
) -> Option<([u8; VALUE_MAX], usize)> {
    let mut bytes = [0; VALUE_MAX];
    let (level, name) = option;
    let length = get(socket.as_raw_fd(), level, name, &mut bytes).ok()?;
    Some((bytes, length))
}

/// The kind of the socket with this number (`SOCK_STREAM` …); `None` where the number names none.
pub(super) fn kind(socket: RawFd) -> Option<libc::c_int> {
    let mut kind = [0; size_of::<libc::c_int>()];
    get(socket, libc::SOL_SOCKET, libc::SO_TYPE, &mut kind).ok()?;
    Some(libc::c_int::from_ne_bytes(kind))
}

/// Reads an option, by its level and number, of the socket with this number, which is only looked up.
/// Returns the length of the value, of which no more is written than there is room for.
///
/// # Errors
/// The error of getsockopt(2).
pub(super) fn get(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    bytes: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(bytes.len()).expect("a few bytes");
    let value = bytes.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to `bytes`, which are that many.
    #[expect(unsafe_code, reason = "no crate reads an option by its number")]
    let status = unsafe { libc::getsockopt(socket, level, name, value, &raw mut length) };
    if status == 0 {
        Ok(usize::try_from(length).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{SockFilter, SockRef};

    use super::super::socket::{Families, Join, listen_families};
    use super::*;

    fn are_altered_at(listener: &TcpListener) -> bool {
        let address = listener.local_addr().unwrap();
        are_altered([listener.as_fd()].into_iter(), address).unwrap()
    }

    fn open(address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        listen_families(address, Families::Default, Join::First, 16).unwrap()
    }

    #[test]
    fn options_of_an_opened_listener_are_not_altered() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = open(address);
            assert!(!are_altered_at(&listener), "{address}");
            // What clients do changes nothing.
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(!are_altered_at(&listener), "{address}");
            drop((client, listener.accept().unwrap()));
            assert!(!are_altered_at(&listener), "{address}");
        }
    }

    #[test]
    fn each_way_to_narrow_a_listener_is_noticed() {
        type Attack = fn(&SockRef<'_>) -> io::Result<()>;
        // A program of one instruction: no byte of any packet.
        let deaf: Attack = |socket| socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]);
        let attacks: [Attack; 7] = [
            deaf,
            |socket| socket.set_recv_buffer_size(1),
            |socket| socket.set_ttl_v4(1),
            |socket| socket.set_tcp_mss(88),
            |socket| socket.set_linger(Some(std::time::Duration::ZERO)),
            |socket| socket.bind_device(Some(b"lo")),
            |socket| socket.set_tcp_user_timeout(Some(std::time::Duration::from_millis(1))),
        ];
        for (number, attack) in attacks.into_iter().enumerate() {
            let listener = open("127.0.0.1:0");
            attack(&SockRef::from(&listener)).expect("it needs no privilege");
            assert!(are_altered_at(&listener), "{number}");
        }
    }
}
