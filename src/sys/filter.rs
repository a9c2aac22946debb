//! A program in classic BPF, the kernel's oldest filter language, that chooses the listener of a
//! `SO_REUSEPORT` group for each new connection.
//!
//! # Why classic
//! `SO_ATTACH_REUSEPORT_CBPF` needs no privilege; the extended language does.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::AttachReusePortCbpf;
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::SockFilter;

sockopt_impl!(DetachReusePortBpf, SetOnly, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, bool);

/// One instruction: what `struct sock_filter` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
/// `SKF_AD_OFF + SKF_AD_RANDOM`: a fresh random number instead of packet data.
const RANDOM: u32 = 0xffff_f000 + 56;
/// `SKF_NET_OFF`: from here on the packet counts from its network header.
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// The length of an IPv4 header without options (RFC 791), and of an IPv6 header (RFC 8200).
const IPV4_HEADER_BYTES: u32 = 20;
const IPV6_HEADER_BYTES: u32 = 40;
/// The most instructions the kernel takes (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// Chooses evenly, at random, among these members of the group; a member's number is its place in the
/// order of `listen()`. Random rather than the default hash: a repeated SYN is sent elsewhere.
fn selector(members: &[u32]) -> Vec<Instruction> {
    let Some((last, others)) = members.split_last() else { return Vec::new() };
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let mut program = vec![plain(LOAD_WORD, RANDOM), plain(MODULO, count)];
    for (number, member) in (0..).zip(others) {
        // Equal: the next instruction; else: the one after it.
        program.push(Instruction { code: JUMP_IF_EQUAL, if_true: 0, if_false: 1, operand: number });
        program.push(plain(RETURN, *member));
    }
    program.push(plain(RETURN, *last));
    program
}

/// Sends the connections from this port of the client's to one member, all others evenly to these.
fn selector_with_exception(exception: Exception, members: &[u32]) -> Vec<Instruction> {
    let Exception { ip, port, to } = exception;
    // A TCP header begins with the port of the sender (RFC 9293 section 3.1).
    let header_bytes = match ip {
        IpVersion::Four => IPV4_HEADER_BYTES,
        IpVersion::Six => IPV6_HEADER_BYTES,
    };
    let operand = u32::from(port);
    let mut program = vec![
        plain(LOAD_HALF, NETWORK_HEADER + header_bytes),
        Instruction { code: JUMP_IF_EQUAL, if_true: 0, if_false: 1, operand },
        plain(RETURN, to),
    ];
    program.extend(selector(members));
    program
}

/// Which header a connection's packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    Four,
    Six,
}

/// Connections that go elsewhere than all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exception {
    pub(super) ip: IpVersion,
    /// The client's port.
    pub(super) port: u16,
    /// The member that they are sent to.
    pub(super) to: u32,
}

const fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, operand }
}

fn assembled(program: &[Instruction]) -> Vec<SockFilter> {
    program
        .iter()
        .map(|program| {
            SockFilter::new(program.code, program.if_true, program.if_false, program.operand)
        })
        .collect()
}

/// Sends the group's new connections to these members only, from now on; the program before is
/// replaced in one step. Any member's descriptor will do.
///
/// # Errors
/// The errors of setsockopt(2): `EINVAL` outside a group or for too many members, `EPERM` when locked.
/// The program before stays.
pub(crate) fn steer(member: BorrowedFd<'_>, members: &[u32]) -> io::Result<()> {
    attach(member, &selector(members))
}

/// The same, with an exception.
///
/// # Errors
/// As for [`steer`].
pub(super) fn steer_with_exception(
    member: BorrowedFd<'_>,
    members: &[u32],
    exception: Exception,
) -> io::Result<()> {
    attach(member, &selector_with_exception(exception, members))
}

/// Leaves the choice to the kernel again: every member of the group is given connections.
///
/// # Errors
/// The errors of setsockopt(2): `ENOENT` where there is no program.
pub(crate) fn unsteer(member: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel reads a value, and does not use it.
    Ok(setsockopt(&member, DetachReusePortBpf, &false)?)
}

fn attach(member: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let program = assembled(program);
    if program.is_empty() || program.len() > INSTRUCTIONS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let given = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // The kernel copies the instructions, which live until the end of this function.
    Ok(setsockopt(&member, AttachReusePortCbpf, &given)?)
}

/// For tests: has the socket drop every packet (socket(7), `SO_ATTACH_FILTER`).
#[cfg(test)]
pub(crate) fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    socket2::SockRef::from(&socket).attach_filter(&assembled(&[plain(RETURN, 0)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answer of a program, given its random number and the client's port.
    fn run(program: &[Instruction], random: u32, port: u16) -> u32 {
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let Instruction { code, if_true, if_false, operand } = program[at];
            at += 1;
            match code {
                LOAD_WORD if operand == RANDOM => accumulator = random,
                LOAD_HALF => accumulator = u32::from(port),
                MODULO => accumulator %= operand,
                JUMP_IF_EQUAL if accumulator == operand => at += usize::from(if_true),
                JUMP_IF_EQUAL => at += usize::from(if_false),
                RETURN => return operand,
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_selector_answers_each_member_equally_often_and_no_other() {
        for members in [vec![0], vec![3], vec![0, 1, 2, 3], vec![1, 3], vec![0, 2, 5, 200, 255]] {
            let program = selector(&members);
            let rounds = 100;
            let mut answers: Vec<u32> = (0..rounds * u32::try_from(members.len()).unwrap())
                .map(|random| run(&program, random, 0))
                .collect();
            answers.sort_unstable();
            let expected: Vec<u32> = members
                .iter()
                .flat_map(|member| std::iter::repeat_n(*member, rounds as usize))
                .collect();
            assert_eq!(answers, expected);
        }
        assert_eq!(selector(&[]), []);
    }

    #[test]
    fn the_exception_is_made_for_one_port() {
        for ip in [IpVersion::Four, IpVersion::Six] {
            let program = selector_with_exception(Exception { ip, port: 4711, to: 2 }, &[0, 1]);
            for random in 0..10 {
                assert_eq!(run(&program, random, 4711), 2);
                assert_eq!(run(&program, random, 4712), random % 2);
            }
        }
    }
}
