//! Listening sockets, on the real kernel.

use std::net::TcpStream;
use std::os::fd::AsFd;

use super::*;

fn file(mode: u32) -> SocketFile {
    SocketFile { mode, owner: (None, None) }
}

/// Of servers that find the same abandoned file, one listens there.
#[test]
fn one_of_many_servers_listens_at_an_abandoned_path() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let path = folder.path().join(format!("{round}.sock"));
        drop(listen_unix(&path, file(0o600), 16).unwrap());
        let begin = std::sync::Barrier::new(4);
        let server = || {
            begin.wait();
            listen_unix(&path, file(0o600), 16)
        };
        let opened: Vec<_> = std::thread::scope(|scope| {
            let servers = [(); 4].map(|()| scope.spawn(server));
            servers.into_iter().filter_map(|server| server.join().unwrap().ok()).collect()
        });
        assert_eq!(opened.len(), 1, "round {round}");
        std::os::unix::net::UnixStream::connect(&path).expect("it can be reached");
    }
    let left = std::fs::read_dir(folder.path()).unwrap();
    let locks = left.filter(|left| left.as_ref().unwrap().path().extension().unwrap() == "lock");
    assert_eq!(locks.count(), 0);
}

/// Nothing but the socket's own file changes, whatever a path leads to.
#[test]
fn socket_file_is_born_with_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        return println!("not tested: only root can give files away");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.sock");
    let born = SocketFile { mode: 0o660, owner: (Some(65_534), Some(33)) };
    let _listener = listen_unix(&path, born, 16).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65_534, 33, 0o660));
    let other = folder.path().join("other");
    std::fs::write(&other, "").unwrap();
    let found = std::fs::metadata(&other).unwrap();
    assert_eq!((found.uid(), found.gid()), (0, nix::unistd::getegid().as_raw()));
    assert!(PathLock::take(&path).is_ok());
}

#[test]
fn a_second_server_is_refused_and_a_further_member_is_not() {
    let any = "127.0.0.1:0".parse().unwrap();
    let first = listen_tcp(any, Join::First, 16).expect("a free port");
    let address = first.local_addr().unwrap();
    let refused = listen_tcp(address, Join::First, 16).expect_err("somebody listens there");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    let further = listen_tcp(address, Join::Further, 16).expect("our own group");
    assert_eq!(further.local_addr().unwrap(), address);
}

#[test]
fn listeners_of_both_families_share_a_port() {
    let v4 = listen_tcp("0.0.0.0:0".parse().unwrap(), Join::First, 16).unwrap();
    let port = v4.local_addr().unwrap().port();
    let six = SocketAddr::new("::".parse().unwrap(), port);
    let v6 = listen_families(six, Families::V6Only, Join::First, 16).unwrap();
    assert!(is_v6_only(v6.as_fd()) && !is_v6_only(v4.as_fd()));
    let further = listen_beside(v6.as_fd(), six, 16).unwrap();
    assert!(is_v6_only(further.as_fd()));
    let lacking = listen_tcp("192.0.2.1:0".parse().unwrap(), Join::First, 16).unwrap_err();
    assert!(is_absence(&lacking), "{lacking}");
}

#[test]
fn steering_sends_connections_to_the_chosen_member_alone() {
    let first = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 64).unwrap();
    let address = first.local_addr().unwrap();
    let members = [first]
        .into_iter()
        .chain((1..4).map(|_| listen_tcp(address, Join::Further, 64).unwrap()))
        .collect::<Vec<_>>();
    super::super::filter::steer(members[0].as_fd(), &[1, 3]).expect("needs no privilege");
    let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let waiting: Vec<u32> =
        members.iter().map(|member| queue_length(member.as_fd()).unwrap()).collect();
    assert_eq!((waiting[0], waiting[2]), (0, 0));
    assert_eq!(waiting[1] + waiting[3], 40);
    drop(clients);
    super::super::filter::unsteer(members[2].as_fd()).expect("nor does this");
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let now: Vec<u32> =
        members.iter().map(|member| queue_length(member.as_fd()).unwrap()).collect();
    assert!(now[0] > 0 && now[2] > 0, "the kernel chooses among all again: {now:?}");
    let none = super::super::filter::unsteer(members[0].as_fd()).expect_err("there is none");
    assert_eq!(none.raw_os_error(), Some(libc::ENOENT));
    drop(clients);
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.sock");
    let first = listen_unix(&path, file(0o640), 16).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    let refused = listen_unix(&path, file(0o777), 16).expect_err("it is alive");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    drop(first);
    listen_unix(&path, file(0o777), 16).expect("it is stale");
    let plain = folder.path().join("file");
    std::fs::write(&plain, "x").unwrap();
    listen_unix(&plain, file(0o777), 16).expect_err("a file is not replaced");
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "x");
}

/// A server whose queue is full lets no client in for the time being, and is not waited for.
#[test]
fn a_live_unix_socket_whose_queue_is_full_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.sock");
    let _full = listen_unix(&path, file(0o777), 0).unwrap();
    let client = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&socket2::SockAddr::unix(&path).unwrap()).map(|()| socket)
    };
    let waiting: Vec<_> = std::iter::repeat_with(client).map_while(Result::ok).collect();
    assert!(!waiting.is_empty());
    let refused = listen_unix(&path, file(0o777), 16).expect_err("it is alive");
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn receive_returns_the_bytes_then_nothing_then_the_end() {
    use std::io::Write;
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 16).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let receive = |bytes: &mut [u8]| receive(stream.as_fd(), bytes);
    assert_eq!(receive(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    client.write_all(b"abc").unwrap();
    let mut bytes = [0; 4];
    assert_eq!((receive(&mut bytes).unwrap(), &bytes[..3]), (3, &b"abc"[..]));
    drop(client);
    assert_eq!(receive(&mut bytes).unwrap(), 0);
}

#[test]
fn unread_bytes_are_counted_and_left() {
    use std::io::{Read, Write};
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 16).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 0);
    client.write_all(b"abc").unwrap();
    assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 3);
    drop(client);
    let mut text = String::new();
    stream.set_nonblocking(false).unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
    assert_eq!(unread_bytes(stream.as_raw_fd()).unwrap(), 0, "its end does not count");
    assert!(unread_bytes(-1).is_err());
}

#[test]
fn unsent_bytes_are_those_that_the_peer_has_no_room_for() {
    use std::io::{Read, Write};
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), Join::First, 16).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 65_536]).is_ok() {}
    assert!(unsent_bytes(stream.as_raw_fd()).unwrap() > 0, "both buffers are full");
    client.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 1 << 20];
    // Loopback delivers and acknowledges at once where there is room.
    while unsent_bytes(stream.as_raw_fd()).unwrap() > 0 {
        let _nothing_yet = client.read(&mut bytes);
    }
    assert!(unsent_bytes(-1).is_err());
}
