//! Class network: sockets are made, connected, bound, put on standard descriptors. (Packets: `crate::network`.)
//!
//! Addresses are the kernel's own: of the socket, after the call, or of the copy that the LSM hook gets.

use super::{argument_at_exit, parameter, result, unless_decided};
use crate::{
    facets::{self, any},
    identity,
    judge::{self, EntryPoint, Report, SecurityHook, Tracepoint, Verdict},
    kernel::{self, get, offset, put, read},
    process,
    scratch::{self, Lane, Scratch},
    socket::{self, AF_INET, AF_INET6, AF_UNIX, End},
};
use aya_ebpf::{
    macros::{btf_tracepoint, lsm, tracepoint},
    programs::{BtfTracePointContext, LsmContext, TracePointContext},
};
use ringfence_abi::{Class, Op};

const CLASS: Class = Class::Network;
/// `include/net/tcp_states.h`
const TCP_SYN_SENT: i32 = 2;
const TCP_LISTEN: i32 = 10;
const SOCK_STREAM: u16 = 1;
const EINPROGRESS: i64 = 115;

/// TCP: before the first SYN leaves, and when a socket begins to listen. Runs in the calling process.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let new: i32 = ctx.arg(2);
    match new {
        // Data that is sent with the first packet connects on its way, past the security hook (TCP Fast Open).
        TCP_SYN_SENT if !kernel::connect_judged_early() || read::<u64>(sk, offset!(tcp_fastopen_req)) != 0 => {
            happened(Op::Connect, End::Remote, || sk);
        }
        TCP_LISTEN => happened(Op::Listen, End::Local, || sk),
        _ => {}
    }
    0
}

/// Exit of connect(fd, address, length): everything is asked of the socket.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_connect(ctx: TracePointContext) -> u32 {
    connected(result(&ctx), || argument_at_exit(&ctx, 0) as i32);
    0
}

#[inline(always)]
fn connected(result: i64, fd: impl FnOnce() -> i32) {
    if (result < 0 && result != -EINPROGRESS) || identity::current().is_none() {
        return;
    }
    let fd = fd();
    let sk = socket::of_descriptor(fd);
    if sk == 0 {
        return;
    }
    let family = socket::family(sk);
    let kind: u16 = read(sk, offset!(sock_type));
    if !kernel::connect_judged_early() && (family == AF_UNIX || kind != SOCK_STREAM) {
        happened(Op::Connect, End::Remote, || sk);
    }
    if (0..=2).contains(&fd) && socket::leads_out(sk) {
        happened(Op::Stdio, End::Remote, || sk);
    }
}

/// Exit of bind(fd, address, length).
#[tracepoint(category = "exit", name = "call")]
pub fn exit_bind(ctx: TracePointContext) -> u32 {
    bound(result(&ctx), || argument_at_exit(&ctx, 0) as i32);
    0
}

#[inline(always)]
fn bound(result: i64, fd: impl FnOnce() -> i32) {
    if result == 0 {
        happened(Op::Bind, End::Local, || socket::of_descriptor(fd()));
    }
}

/// Exit of socket: the result is a descriptor.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_socket(ctx: TracePointContext) -> u32 {
    made(result(&ctx));
    0
}

#[inline(always)]
fn made(fd: i64) {
    if fd >= 0 {
        happened(Op::Socket, End::Remote, || socket::of_descriptor(fd as i32));
    }
}

/// Exit of socketcall(call, arguments): all calls on sockets that 32-bit programs had before 4.3, and still have. A
/// descriptor is read from the caller's memory, where another thread may have put another one since the kernel read it.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_socketcall(ctx: TracePointContext) -> u32 {
    // `include/uapi/linux/net.h`
    const SYS_SOCKET: u64 = 1;
    const SYS_BIND: u64 = 2;
    const SYS_CONNECT: u64 = 3;
    let result = result(&ctx);
    let fd = || {
        let [fd] = kernel::words_of_caller(argument_at_exit(&ctx, 1));
        fd as i32
    };
    match argument_at_exit(&ctx, 0) {
        SYS_SOCKET if !kernel::sockets_judged_early() => made(result),
        SYS_BIND => bound(result, fd),
        SYS_CONNECT => connected(result, fd),
        _ => {}
    }
    0
}

/// socket_post_create(socket, family, type, protocol, kernel's own): a socket is made, and not yet given out.
#[lsm(hook = "---socket_post_create")]
pub fn socket_post_create(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 5, || {
        if parameter(&ctx, 4) as i32 != 0 {
            return Verdict::Pass;
        }
        let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Network, Op::Socket) else {
            return Verdict::Pass;
        };
        socket::describe(&mut held, read(parameter(&ctx, 0), offset!(socket_sk)), End::Remote);
        no_object(&mut held);
        matched::<SecurityHook>(&mut held)
    })
}

/// Exit of dup, dup2, dup3: the result is the new descriptor.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_dup(ctx: TracePointContext) -> u32 {
    on_stdio(result(&ctx));
    0
}

/// Exit of fcntl(fd, command, argument): only duplication matters, and only onto the standard descriptors.
#[tracepoint(category = "exit", name = "call")]
pub fn exit_fcntl(ctx: TracePointContext) -> u32 {
    const F_DUPFD: u64 = 0;
    const F_DUPFD_CLOEXEC: u64 = 1030;
    let fd = result(&ctx);
    if (0..=2).contains(&fd) && matches!(argument_at_exit(&ctx, 1), F_DUPFD | F_DUPFD_CLOEXEC) {
        on_stdio(fd);
    }
    0
}

#[inline(always)]
fn on_stdio(fd: i64) {
    if !(0..=2).contains(&fd) || identity::current().is_none() {
        return;
    }
    let sk = socket::of_descriptor(fd as i32);
    if socket::leads_out(sk) {
        happened(Op::Stdio, End::Remote, || sk);
    }
}

/// Before a connection is begun. Unix sockets have a hook of their own, which knows the peer.
#[lsm(hook = "---socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 3, || inet_connect(parameter(&ctx, 0), parameter(&ctx, 1)))
}

/// Judges what is asked of a `struct socket`: to connect to an address.
#[inline(always)]
fn inet_connect(sock: u64, address: u64) -> Verdict {
    let family: u16 = read(address, 0);
    if family != AF_INET && family != AF_INET6 {
        return Verdict::Pass;
    }
    let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Network, Op::Connect) else { return Verdict::Pass };
    let s = &mut *held;
    socket::describe(s, read(sock, offset!(socket_sk)), End::Remote);
    // `struct sockaddr_in` and `sockaddr_in6`: the kernel's copy of what the caller asks for.
    s.event.header.port = u16::from_be(read(address, 2));
    s.event.header.address = if family == AF_INET { socket::mapped(read(address, 4)) } else { read(address, 8) };
    no_object(s);
    matched::<SecurityHook>(s)
}

/// Before a stream connection to a Unix socket.
#[lsm(hook = "---unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    unless_decided(&ctx, 3, || unix_connect(parameter(&ctx, 0), parameter(&ctx, 1)))
}

/// Judges what is asked of a `struct sock`: to connect to another one.
#[inline(always)]
fn unix_connect(own: u64, peer: u64) -> Verdict {
    let Some(mut held) = judge::begin::<SecurityHook>(CLASS, Lane::Network, Op::Connect) else { return Verdict::Pass };
    let s = &mut *held;
    socket::describe(s, own, End::Remote);
    unix_object(s, peer);
    matched::<SecurityHook>(s)
}

/// Something happened to a socket: judge it.
#[inline(always)]
fn happened(op: Op, end: End, socket: impl FnOnce() -> u64) {
    let Some(mut held) = judge::begin::<Tracepoint>(CLASS, Lane::Network, op) else { return };
    let sk = socket();
    if sk != 0 {
        socket::describe(&mut held, sk, end);
        rf_happened(held.index);
    }
}

/// Judges the socket that was described. Verified by itself: some programs come here twice.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_happened(index: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    if s.event.header.family as u16 == AF_UNIX && s.event.header.op == Op::Connect as u8 {
        unix_object(s, read(s.socket, offset!(unix_peer)));
    } else {
        no_object(s);
    }
    matched::<Tracepoint>(s);
    0
}

/// The event is about no file.
#[inline(always)]
fn no_object(s: &mut Scratch) {
    put(&raw mut s.object.dentry, 0);
}

/// The path that a Unix socket was bound to, as the event's object. One that was bound to none has no file.
#[inline(always)]
fn unix_object(s: &mut Scratch, peer: u64) {
    let dentry: u64 = read(peer, offset!(unix_path_dentry));
    let inode: u64 = read(dentry, offset!(dentry_inode));
    s.object =
        scratch::Object { dentry, mnt: read(peer, offset!(unix_path_mnt)), inode, sb: read(inode, offset!(inode_sb)) };
}

#[inline(always)]
fn matched<E: EntryPoint>(s: &mut Scratch) -> Verdict {
    facets::flags(s, CLASS);
    let Some(defaults) = facets::defaults(s, CLASS) else { return Verdict::Pass };
    socket::match_socket(s, CLASS, defaults);
    if !any(&s.hit) {
        return Verdict::Pass;
    }
    // Read back: else the compiler writes out everything above for each of the two.
    let report = if get(&raw const s.object.dentry) != 0 {
        facets::object(s, CLASS, defaults);
        Report::File
    } else {
        // Lines that ask for a path are not about this event.
        facets::without_object(s, defaults);
        Report::None
    };
    process::match_actor(s, CLASS, defaults);
    judge::settle::<E>(s, CLASS, report)
}
