//! Which packets are wanted, as a program for the kernel.
//!
//! # What is looked at
//! Frames of Ethernet without a VLAN tag. (The kernel takes the tag out of frames that it receives, and they would look
//! like others.) Addresses are those of the outermost IP header, or of an ARP message. Ports are those of TCP, UDP and
//! SCTP behind it, whatever options IPv4 has, and behind up to six extension headers of IPv6. Of a packet in fragments,
//! only the first fragment has ports: if ports are asked for, the others are not wanted, and neither is ARP. A frame
//! that ends before what is looked at is not wanted.

mod program;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use program::{Label, Program};
use sys::capture::Instruction;

/// How many extension headers of IPv6 are followed: those of RFC 8200 that come before a transport header.
const EXTENSION_HEADERS: usize = 6;

/// What the kernel loads here is whether there was a VLAN tag (`SKF_AD_OFF` and `SKF_AD_VLAN_TAG_PRESENT` of
/// linux/filter.h).
const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
const ETHERNET: u32 = 14;
const TYPE: u32 = 12;
const TYPE_V4: u32 = 0x0800;
const TYPE_ARP: u32 = 0x0806;
const TYPE_V6: u32 = 0x86dd;
/// Numbers of protocols and extension headers (IANA).
const WITH_PORTS: [u32; 3] = [6, 17, 132];
/// Hop-by-hop options, routing, destination options: RFC 8200, all of the same form.
const EXTENSIONS: [u32; 3] = [0, 43, 60];
const FRAGMENT: u32 = 44;

/// Which packets are wanted. Without conditions, all are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Groups of addresses: a packet comes from or goes to one of each group. An empty group has no packets.
    pub addresses: Vec<Vec<IpAddr>>,
    /// A packet comes from or goes to one of these ports; any if there are none.
    pub ports: Vec<u16>,
    /// How many bytes of a packet are wanted, at least 1.
    pub snaplen: u32,
}

impl Filter {
    /// The program for `sys::capture::Capture::open`. With many addresses it is longer than the kernel takes: 4,096
    /// instructions, which in the form that it translates them into have room in `net.core.optmem_max` bytes. With the
    /// 20,480 that were the default before Linux 6.7, those are some 17 addresses of IPv6.
    #[must_use]
    pub fn program(&self) -> Vec<Instruction> {
        let mut p = Program::default();
        let (accept, reject) = (p.label(), p.label());
        // The kernel has taken the tag out of the frame, which would look like another one.
        let untagged = p.label();
        p.word(VLAN_TAG_PRESENT);
        p.jump_equal(0, untagged);
        p.jump(reject);
        p.place(untagged);
        if !(self.addresses.is_empty() && self.ports.is_empty()) {
            let [v4, v6, arp] = [p.label(), p.label(), p.label()];
            p.half(TYPE);
            p.jump_equal(TYPE_V4, v4);
            p.jump_equal(TYPE_V6, v6);
            if self.ports.is_empty() {
                p.jump_equal(TYPE_ARP, arp);
            }
            p.jump(reject);
            p.place(v4);
            self.v4(&mut p, [12, 16], reject);
            if !self.ports.is_empty() {
                ports_v4(&mut p, reject);
                self.ports(&mut p, accept, reject);
            }
            p.jump(accept);
            p.place(v6);
            self.v6(&mut p, reject);
            if !self.ports.is_empty() {
                ports_v6(&mut p, reject);
                self.ports(&mut p, accept, reject);
            }
            p.jump(accept);
            p.place(arp);
            if self.ports.is_empty() {
                // Of Ethernet and IPv4 (RFC 826).
                let there = p.label();
                p.word(ETHERNET);
                p.jump_equal(1 << 16 | TYPE_V4, there);
                p.jump(reject);
                p.place(there);
                self.v4(&mut p, [14, 24], reject);
            }
        }
        p.place(accept);
        p.answer(self.snaplen);
        p.place(reject);
        p.answer(0);
        p.finish()
    }

    /// Goes on if one of the addresses at these places is in each group.
    fn v4(&self, p: &mut Program, places: [u32; 2], reject: Label) {
        for group in &self.addresses {
            let found = p.label();
            for place in places {
                p.word(ETHERNET + place);
                for address in group.iter().filter_map(v4) {
                    p.jump_equal(address.to_bits(), found);
                }
            }
            p.jump(reject);
            p.place(found);
        }
    }

    fn v6(&self, p: &mut Program, reject: Label) {
        for group in &self.addresses {
            let found = p.label();
            for place in [8, 24] {
                // The address is there as a whole, or the frame is not wanted.
                p.word(ETHERNET + place + 12);
                for address in group.iter().filter_map(v6) {
                    let other = p.label();
                    for (word, at) in words(address).zip((ETHERNET + place..).step_by(4)) {
                        let same = p.label();
                        p.word(at);
                        p.jump_equal(word, same);
                        p.jump(other);
                        p.place(same);
                    }
                    p.jump(found);
                    p.place(other);
                }
            }
            p.jump(reject);
            p.place(found);
        }
    }

    /// The transport header is behind the index register.
    fn ports(&self, p: &mut Program, accept: Label, reject: Label) {
        for place in [0, 2] {
            p.half_behind_index(ETHERNET + place);
            for port in &self.ports {
                p.jump_equal((*port).into(), accept);
            }
        }
        p.jump(reject);
    }
}

/// Goes on if the packet has ports, with the length of its IP header in the index register.
fn ports_v4(p: &mut Program, reject: Label) {
    let found = p.label();
    // The offset of a fragment.
    p.half(ETHERNET + 6);
    p.jump_any_bit(0x1fff, reject);
    p.byte(ETHERNET + 9);
    for protocol in WITH_PORTS {
        p.jump_equal(protocol, found);
    }
    p.jump(reject);
    p.place(found);
    p.index_header_length(ETHERNET);
}

/// Goes on if the packet has ports, with the length of its IP headers in the index register.
fn ports_v6(p: &mut Program, reject: Label) {
    let found = p.label();
    p.index(40);
    p.byte(ETHERNET + 6);
    for at in 0..=EXTENSION_HEADERS {
        // The accumulator has the number of the header behind the index register.
        for protocol in WITH_PORTS {
            p.jump_equal(protocol, found);
        }
        if at == EXTENSION_HEADERS {
            break;
        }
        let [extension, fragment, next] = [p.label(), p.label(), p.label()];
        for number in EXTENSIONS {
            p.jump_equal(number, extension);
        }
        p.jump_equal(FRAGMENT, fragment);
        p.jump(reject);
        p.place(extension);
        p.byte_behind_index(ETHERNET);
        p.save();
        p.byte_behind_index(ETHERNET + 1);
        // In units of 8 bytes behind the first one.
        p.add(1);
        p.shift_left(3);
        p.add_index();
        p.store_index();
        p.restore();
        p.jump(next);
        p.place(fragment);
        p.half_behind_index(ETHERNET + 2);
        p.jump_any_bit(0xfff8, reject);
        p.byte_behind_index(ETHERNET);
        p.save();
        p.load_index();
        p.add(8);
        p.store_index();
        p.restore();
        p.place(next);
    }
    p.jump(reject);
    p.place(found);
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(v4) = address { Some(*v4) } else { None }
}

fn v6(address: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(v6) = address { Some(*v6) } else { None }
}

fn words(address: Ipv6Addr) -> impl Iterator<Item = u32> {
    let bits = address.to_bits();
    [96, 64, 32, 0]
        .into_iter()
        .map(move |shift| u32::try_from((bits >> shift) & u128::from(u32::MAX)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
