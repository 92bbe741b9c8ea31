//! Sockets, read from the kernel's own `struct sock`.

use crate::{
    kernel::{self, get, offset, put, read},
    object,
    scratch::{self, Scratch},
};
use ringfence_abi::{Class, Facet, FacetDefaults};

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// The `struct sock` behind a descriptor of the current task; 0: not a socket.
#[inline(always)]
pub fn of_descriptor(fd: i32) -> u64 {
    let file = object::file_of(kernel::current(), fd);
    let inode: u64 = read(file, offset!(file_inode));
    let mode: u16 = read(inode, offset!(inode_mode));
    if file == 0 || mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    // `file.private_data` of a socket is its `struct socket` (`net/socket.c`, sock_alloc_file).
    read(read(file, offset!(file_private)), offset!(socket_sk))
}

#[inline(always)]
pub fn family(sk: u64) -> u16 {
    read(sk, offset!(sock_family))
}

/// An IPv4 address, as it stands in the packet, mapped into IPv6.
#[inline(always)]
pub fn mapped(address: u32) -> [u8; 16] {
    let a = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]
}

/// Which end of a socket an event speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    Remote,
    Local,
}

/// Fills family, type, protocol, and one end's address and port into the event.
#[inline(always)]
pub fn describe(s: &mut Scratch, sk: u64, end: End) {
    put(&raw mut s.socket, sk);
    rf_describe_socket(s.index, end as u32);
}

/// Of the socket in `s.socket`. Verified by itself, because each family is another way through what follows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rf_describe_socket(index: u32, end: u32) -> u32 {
    let Some(s) = scratch::by_index(index) else { return 1 };
    let sk = get(&raw const s.socket);
    let end = if end == End::Local as u32 { End::Local } else { End::Remote };
    let family = family(sk);
    let h = &raw mut s.event.header;
    // SAFETY: `h` points into the scratch.
    unsafe {
        (*h).family = family as u8;
        (*h).socket_type = read::<u16>(sk, offset!(sock_type)) as u8;
        (*h).protocol = read(sk, offset!(sock_protocol));
        if family == AF_INET {
            (*h).address = mapped(match end {
                End::Remote => read(sk, offset!(sock_daddr)),
                End::Local => read(sk, offset!(sock_rcv_saddr)),
            });
        } else if family == AF_INET6 {
            (*h).address = match end {
                End::Remote => read(sk, offset!(sock_daddr6)),
                End::Local => read(sk, offset!(sock_rcv_saddr6)),
            };
        }
        if family == AF_INET || family == AF_INET6 {
            (*h).port = match end {
                End::Remote => u16::from_be(read(sk, offset!(sock_dport))),
                End::Local => read(sk, offset!(sock_num)),
            };
        }
    }
    0
}

/// Whether an internet socket is connected to somewhere else than the loopback.
#[inline(always)]
pub fn leads_out(sk: u64) -> bool {
    match family(sk) {
        AF_INET => {
            let address: u32 = read(sk, offset!(sock_daddr));
            address != 0 && address.to_ne_bytes()[0] != 127
        }
        AF_INET6 => {
            let a: [u64; 2] = read(sk, offset!(sock_daddr6));
            let loopback = u64::from_be(a[1]) == 1 && a[0] == 0;
            let mapped_loopback = a[0] == 0 && (u64::from_be(a[1]) >> 24) == 0xff_ff7f;
            (a[0] | a[1]) != 0 && !loopback && !mapped_loopback
        }
        _ => false,
    }
}

/// Narrows by everything that [`describe`] filled in.
#[inline(always)]
pub fn match_socket(s: &mut Scratch, class: Class, defaults: &FacetDefaults) {
    use crate::facets;
    use ringfence_abi::ByteFacet;
    let h = &s.event.header;
    let (family, kind, port) = (h.family, h.socket_type, h.port);
    facets::byte(s, class, ByteFacet::Family, family);
    facets::byte(s, class, ByteFacet::SocketType, kind);
    facets::number(s, class, defaults, Facet::Port, port as u64);
    facets::destination(s, class, defaults);
}
