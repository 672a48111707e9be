//! The little of DNS messages that has to be understood to pass them on (RFC 1035, section 4.1).

use std::ops::Range;

const HEADER_LEN: usize = 12;
/// Longest name, with its length bytes (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;
/// Bit of the third byte: a response.
const RESPONSE: u8 = 0x80;
/// Bits of the third byte that a response repeats: the kind of query and "recursion desired".
const REPEATED: u8 = 0x79;

const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// Whether `message` is a query with one question, the only kind that anybody sends.
pub(super) fn is_query(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & RESPONSE == 0) && question(message).is_some()
}

/// Whether `answer` answers `query`.
///
/// It has the same id, is a response and repeats the question: its type and class exactly, its name in any case, since
/// there are servers that change that (the client, who gets the answer as it is, may be stricter). An error may come
/// without the question: servers that do not understand a query send it so.
pub(super) fn answers(query: &[u8], answer: &[u8]) -> bool {
    if answer.len() < HEADER_LEN || answer.get(..2) != query.get(..2) || answer[2] & RESPONSE == 0 {
        return false;
    }
    match question(answer).and_then(|found| answer.get(found)) {
        Some(found) => question(query)
            .and_then(|asked| query.get(asked))
            .is_some_and(|asked| same(asked, found)),
        None => answer[4..6] == [0, 0] && rcode(answer) != 0,
    }
}

/// Whether another name server may know better.
pub(super) fn is_refusal(answer: &[u8]) -> bool {
    matches!(rcode(answer), SERVFAIL | NOTIMP | REFUSED)
}

pub(super) fn server_failure(query: &[u8]) -> Vec<u8> {
    let mut answer = query
        .get(..question(query).map_or(0, |question| question.end))
        .unwrap_or_default()
        .to_vec();
    if let Some(header) = answer.get_mut(2..HEADER_LEN) {
        header[0] = RESPONSE | (header[0] & REPEATED);
        header[1] = SERVFAIL;
        // One question is left; no answers, authorities or additional records.
        header[4..].fill(0);
    }
    answer
}

fn rcode(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |flags| flags & 0x0f)
}

/// Where the only question of a message is; `None` if there is not exactly one or it is malformed.
pub(super) fn question(message: &[u8]) -> Option<Range<usize>> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        let label = *message.get(at)?;
        // Longer "labels" are pointers, which have nothing to point to before the first name.
        if label > LONGEST_LABEL {
            return None;
        }
        at += 1 + usize::from(label);
        if at - HEADER_LEN > LONGEST_NAME {
            return None;
        }
        if label == 0 {
            break;
        }
    }
    // Type and class.
    let end = at + 4;
    (end <= message.len()).then_some(HEADER_LEN..end)
}

/// Whether two questions ask the same. Length bytes are no letters, so the name can be compared in one go.
fn same(one: &[u8], other: &[u8]) -> bool {
    match (one.split_last_chunk::<4>(), other.split_last_chunk::<4>()) {
        (Some((one, kind)), Some((other, other_kind))) => {
            kind == other_kind && one.eq_ignore_ascii_case(other)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::tests::{query, response};

    #[test]
    fn queries_have_one_well_formed_question() {
        let good = query(7, "example.org");
        assert!(is_query(&good));
        assert!(is_query(&query(7, "")), "the root");
        assert!(!is_query(&response(&good, 0)), "a response");
        for length in 0..good.len() {
            assert!(!is_query(&good[..length]), "cut to {length}");
        }
        let mut two = good.clone();
        two[5] = 2;
        assert!(!is_query(&two));
        let mut pointer = good;
        pointer[12] = 0xc0;
        assert!(!is_query(&pointer));
        let long = vec!["a".repeat(63); 4].join(".");
        assert!(!is_query(&query(7, &long)), "a name of 257 bytes");
        assert!(is_query(&query(7, &long[..253])), "a name of 255 bytes");
    }

    #[test]
    fn answers_have_id_response_bit_and_question() {
        let asked = query(0x1234, "Example.org");
        let good = response(&asked, 0);
        assert!(answers(&asked, &good));
        assert!(answers(&asked, &response(&query(0x1234, "eXAMPLE.ORG"), 0)));
        assert!(!answers(&asked, &asked), "no response");
        assert!(!answers(&asked, &response(&query(0x1235, "example.org"), 0)), "other id");
        assert!(!answers(&asked, &response(&query(0x1234, "example.net"), 0)), "other name");
        let mut kind = good.clone();
        *kind.last_mut().unwrap() ^= 0x20;
        assert!(!answers(&asked, &kind), "other class");
        for length in 0..good.len() {
            assert!(!answers(&asked, &good[..length]), "cut to {length}");
        }
    }

    #[test]
    fn only_errors_come_without_question() {
        let asked = query(1, "a");
        let mut bare = response(&asked, 1)[..12].to_vec();
        bare[5] = 0;
        assert!(answers(&asked, &bare));
        bare[3] = 0;
        assert!(!answers(&asked, &bare));
    }

    #[test]
    fn server_failure_answers_and_drops_additional_records() {
        let mut asked = query(1, "a.b");
        let plain = asked.len();
        asked[2] = 0x01;
        asked[11] = 1;
        asked.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let answer = server_failure(&asked);
        assert!(answers(&asked, &answer));
        assert!(is_refusal(&answer));
        assert_eq!(answer.len(), plain);
        assert_eq!(answer[2..12], [0x81, 2, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
