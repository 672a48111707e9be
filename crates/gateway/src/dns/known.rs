//! The names that addresses were looked up by.
//!
//! Containers of one daemon often ask through the same resolver, so who has asked is not kept: an address has the name
//! that anybody was given it for most recently.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::question;

/// Addresses that are kept; the one that was learned first makes room.
const MAX_ADDRESSES: usize = 4096;
/// Records of one answer that are looked at.
const MAX_RECORDS: u16 = 256;

/// Type, class, time to live and length of a record (RFC 1035, section 4.1.3).
const RECORD_HEADER_LEN: usize = 10;
const IN: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;
/// Both bits of a length byte: the rest of the name is elsewhere (RFC 1035, section 4.1.4).
const POINTER: u8 = 0xc0;

/// Names by address.
#[derive(Debug, Default)]
pub struct KnownNames {
    names: HashMap<IpAddr, Known>,
    /// In the order in which they were learned, some of them more than once; the number is that of the entry.
    order: VecDeque<(u64, IpAddr)>,
    learned: u64,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    until: Instant,
    number: u64,
}

impl KnownNames {
    /// Takes in an answer's [`addresses`].
    pub fn learn(&mut self, now: Instant, name: &str, addresses: &[(IpAddr, Duration)]) {
        if addresses.is_empty() {
            return;
        }
        let name: Arc<str> = name.into();
        for &(ip, life) in addresses {
            self.learned += 1;
            let until = now + egress::lifetime(life);
            let known = Known { name: Arc::clone(&name), until, number: self.learned };
            self.names.insert(ip, known);
            self.order.push_back((self.learned, ip));
        }
        while self.names.len() > MAX_ADDRESSES
            && let Some((number, ip)) = self.order.pop_front()
        {
            if self.names.get(&ip).is_some_and(|known| known.number == number) {
                self.names.remove(&ip);
            }
        }
        if self.order.len() > 2 * MAX_ADDRESSES {
            let names = &self.names;
            self.order
                .retain(|(number, ip)| names.get(ip).is_some_and(|known| known.number == *number));
        }
    }

    /// The name of an address.
    pub fn get(&self, now: Instant, ip: IpAddr) -> Option<Arc<str>> {
        let known = self.names.get(&ip).filter(|known| known.until > now)?;
        Some(Arc::clone(&known.name))
    }
}

/// The name that was asked for, in lower case and without a final dot, and the addresses in the answer with their time to
/// live: they have that name, however many aliases there are between. `None` if it is no answer.
pub fn addresses(answer: &[u8]) -> Option<(String, Vec<(IpAddr, Duration)>)> {
    let question = question(answer)?;
    let mut at = question.end;
    let name = text(answer.get(question.start..question.end - 4)?);
    let count = u16::from_be_bytes(*answer.get(6..)?.first_chunk()?).min(MAX_RECORDS);
    let mut addresses = Vec::new();
    for _ in 0..count {
        // What is cut short ends here.
        let Some((record, end)) = record(answer, at) else { break };
        addresses.extend(record);
        at = end;
    }
    Some((name, addresses))
}

/// The address in a record, if it is one of an address, and where the next record begins.
fn record(answer: &[u8], at: usize) -> Option<(Option<(IpAddr, Duration)>, usize)> {
    let at = name_end(answer, at)?;
    let header: &[u8; RECORD_HEADER_LEN] = answer.get(at..)?.first_chunk()?;
    let short = |place: usize| u16::from_be_bytes([header[place], header[place + 1]]);
    let life = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let begin = at + RECORD_HEADER_LEN;
    let end = begin + usize::from(short(8));
    let data = answer.get(begin..end)?;
    let ip: Option<IpAddr> = match (short(2), short(0)) {
        (IN, A) => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into()),
        (IN, AAAA) => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    };
    Some((ip.map(|ip| (ip, Duration::from_secs(life.into()))), end))
}

/// Where the name that begins at `at` ends.
fn name_end(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            length if length & POINTER == POINTER => return Some(at + 2),
            length if length & POINTER == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// A name as text (RFC 1035, section 5.1), in lower case: servers may give it in another one than it was asked for.
fn text(mut labels: &[u8]) -> String {
    let mut text = String::new();
    while let Some((&length, rest)) = labels.split_first()
        && let Some((label, rest)) = rest.split_at_checked(length.into())
        && length > 0
    {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'\\' => text.push_str("\\\\"),
                // In numbers, so that nobody takes it for the end of a label.
                b'.' => text.push_str("\\046"),
                0x21..=0x7e => text.push(char::from(byte.to_ascii_lowercase())),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        labels = rest;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::tests::{query, response};

    /// Appends records: name, type, time to live, data.
    fn answer(name: &str, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut answer = response(&query(7, name), 0);
        answer[7] = u8::try_from(records.len()).unwrap();
        for (owner, kind, life, data) in records {
            answer.extend(*owner);
            answer.extend(kind.to_be_bytes());
            answer.extend(IN.to_be_bytes());
            answer.extend(life.to_be_bytes());
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(*data);
        }
        answer
    }

    fn learn(known: &mut KnownNames, now: Instant, answer: &[u8]) {
        let (name, addresses) = addresses(answer).unwrap();
        known.learn(now, &name, &addresses);
    }

    const ASKED: &[u8] = &[0xc0, 12];
    const CNAME: u16 = 5;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_have_the_name_that_was_asked_for() {
        let six = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let (mut known, now) = (KnownNames::default(), Instant::now());
        let alias = b"\x03cdn\x00";
        learn(
            &mut known,
            now,
            &answer(
                "WWW.Example.org",
                &[
                    (ASKED, CNAME, 300, alias),
                    (alias, A, 300, &[192, 0, 2, 1]),
                    (alias, AAAA, 300, &six),
                    (alias, 16, 300, &[192, 0, 2, 2]),
                ],
            ),
        );
        for (address, name) in [
            ("192.0.2.1", Some("www.example.org")),
            ("2001:db8::1", Some("www.example.org")),
            ("192.0.2.2", None),
        ] {
            assert_eq!(known.get(now, ip(address)).as_deref(), name, "{address}");
        }
        learn(&mut known, now, &answer("other", &[(ASKED, A, 300, &[192, 0, 2, 1])]));
        assert_eq!(known.get(now, ip("192.0.2.1")).as_deref(), Some("other"), "the latest");
    }

    #[test]
    fn names_live_as_long_as_their_records_within_limits() {
        let (mut known, now) = (KnownNames::default(), Instant::now());
        for (life, seconds) in [(0, 60), (61, 61), (u32::MAX, 24 * 3600)] {
            learn(&mut known, now, &answer("a", &[(ASKED, A, life, &[192, 0, 2, 1])]));
            let until = now + Duration::from_secs(seconds);
            assert!(known.get(until - Duration::from_secs(1), ip("192.0.2.1")).is_some());
            assert!(known.get(until, ip("192.0.2.1")).is_none(), "{life}");
        }
    }

    #[test]
    fn the_addresses_that_were_learned_first_make_room() {
        let (mut known, now) = (KnownNames::default(), Instant::now());
        let mut learn = |n: u32| {
            learn(&mut known, now, &answer("a", &[(ASKED, A, 300, &n.to_be_bytes())]));
            assert!(known.order.len() <= 2 * MAX_ADDRESSES);
        };
        let most = u32::try_from(MAX_ADDRESSES).unwrap();
        (0..most).for_each(&mut learn);
        // One that is looked up again and again does not push others out.
        (0..3 * most).for_each(|_| learn(1));
        learn(most);
        let has = |n: u32| known.get(now, Ipv4Addr::from_bits(n).into()).is_some();
        assert_eq!(known.names.len(), MAX_ADDRESSES);
        assert!(!has(0) && has(1) && has(2) && has(most));
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(text(b"\x05a\x1b[.\\\x03\xc3\xa4 \x00"), "a\\027[\\046\\\\.\\195\\164\\032");
        assert_eq!(text(b"\x00"), ".");
    }

    #[test]
    fn what_is_cut_short_says_what_it_can() {
        let whole = answer("a", &[(ASKED, A, 1, &[192, 0, 2, 1]), (ASKED, A, 1, &[192, 0, 2, 2])]);
        let found: Vec<_> = (0..=whole.len())
            .map(|length| addresses(&whole[..length]).map_or(0, |(_, found)| found.len()))
            .collect();
        assert!(found.is_sorted(), "{found:?}");
        assert_eq!(found[whole.len() - 1..], [1, 2]);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            addresses(&bytes);
            let mut records = answer("a", &[(ASKED, A, 1, &[192, 0, 2, 1])]);
            records[7] = 255;
            let (name, found) = addresses(&[records, bytes].concat()).unwrap();
            KnownNames::default().learn(Instant::now(), &name, &found);
        }
    }
}
