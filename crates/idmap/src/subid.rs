//! `/etc/subuid` and `/etc/subgid` (subuid(5), subgid(5)).
//!
//! Lines are `<user name or decimal uid>:<first id>:<number of ids>`; the first field is the *user* in `/etc/subgid` as
//! well. Blank lines and lines that start with `#` are skipped. newuidmap(1) reads the files for itself and passes over lines
//! with blanks around them, so these are malformed here, too: what we would make of them, it would refuse. A line that is malformed stops only the user it is about:
//! RootlessKit in Go lets a slip in somebody else's line stop everybody.

use std::io;
use std::path::{Path, PathBuf};

use hostenv::user::User;

use crate::outer::Outer;
use crate::{Kind, Range};

/// Ids that a rootless Docker is expected to have, so that every id a usual image uses is there.
pub const USUAL_COUNT: u32 = 65536;

/// Where useradd(8) starts to give out subordinate ids (`SUB_UID_MIN`, login.defs(5)).
const FIRST_GIVEN_OUT: u32 = 100_000;

/// Where a range starts at the earliest in a container that has fewer ids than that: ordinary users are below.
const FIRST_IN_CONTAINER: u32 = 10_000;

/// The ids 65534 and 65535: "nobody", and -1 of 16 bits.
const NOBODY: Option<Range> = Range::new(65534, 2);

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SubidFileError {
    /// The user's own line makes no sense.
    #[error(
        "{}:{line}: `{text}`: {reason}\nhint: as root, change the line to the form USER:START:COUNT, for example `{owner}:100000:65536`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong.
        reason: String,
        /// First field of the line.
        owner: String,
    },
    /// The file exists and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The ranges of `user` in `<root>/etc/subuid` or `subgid`, in the order of the file. No file is an empty file.
///
/// # Errors
/// The file cannot be read, or a line of this user is malformed.
pub fn read(root: &Path, kind: Kind, user: &User) -> Result<Vec<Range>, SubidFileError> {
    let path = file(root, kind);
    match hostenv::file::read(&path) {
        Ok(text) => parse(&path, &text, &user.name, user.uid),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(SubidFileError::Read { path, source }),
    }
}

/// `<root>/etc/subuid` or `<root>/etc/subgid`.
pub fn file(root: &Path, kind: Kind) -> PathBuf {
    root.join("etc").join(kind.subid())
}

/// The ranges in `text` of the user with this name and id. `path` is for messages. Malformed lines of other users and
/// ranges without ids are skipped with a warning.
///
/// # Errors
/// A line of this user is malformed.
pub fn parse(path: &Path, text: &[u8], name: &str, uid: u32) -> Result<Vec<Range>, SubidFileError> {
    let uid = uid.to_string();
    let mut ranges = Vec::new();
    for (number, line) in lines(text) {
        let owner = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
        let ours = owner == name.as_bytes() || owner == uid.as_bytes();
        let text = || String::from_utf8_lossy(line.trim_ascii());
        match parse_line(line) {
            Ok(Some(range)) if ours => ranges.push(range),
            Ok(None) if ours => {
                tracing::warn!("{}:{number}: ignoring a range of 0 IDs", path.display());
            }
            Ok(_) => {}
            Err(reason) if ours => {
                return Err(SubidFileError::Malformed {
                    path: path.to_owned(),
                    line: number,
                    text: text().into_owned(),
                    reason,
                    owner: String::from_utf8_lossy(owner).into_owned(),
                });
            }
            Err(reason) => {
                let (path, text) = (path.display(), text());
                tracing::warn!("{path}:{number}: `{text}`: {reason}; ignoring the line");
            }
        }
    }
    Ok(ranges)
}

/// A range of [`USUAL_COUNT`] ids that no line of `texts` touches, for a suggestion to the administrator. Pass both
/// files, as one range is suggested for both.
pub fn free_range(texts: &[&[u8]]) -> Option<Range> {
    free_range_within(texts, &[Range::ALL])
}

/// The same of the ids that a container has ([`crate::outer`]). Where [`USUAL_COUNT`] of them are not free, it is the
/// longest free range that leaves room for the ids of ordinary users.
pub fn free_range_within(texts: &[&[u8]], there: &[Range]) -> Option<Range> {
    let all = texts.iter().flat_map(|text| lines(text));
    let mut taken: Vec<Range> =
        all.filter_map(|(_, line)| parse_line(line.trim_ascii()).ok().flatten()).collect();
    taken.sort_unstable();
    let usual = gaps(there, FIRST_GIVEN_OUT, &taken)
        .find(|gap| gap.count() >= USUAL_COUNT)
        .and_then(|gap| Range::new(gap.start(), USUAL_COUNT));
    if usual.is_some() || there.contains(&Range::ALL) {
        return usual;
    }
    taken.extend(NOBODY);
    taken.sort_unstable();
    // The first of the longest.
    let longest = gaps(there, FIRST_IN_CONTAINER, &taken)
        .reduce(|a, b| if b.count() > a.count() { b } else { a })?;
    Range::new(longest.start(), longest.count().min(USUAL_COUNT))
}

/// The same for the files and the ids below `root`, in both kinds of ids. A file that cannot be read counts as empty.
pub fn free_range_below(root: &Path) -> Option<Range> {
    let kinds = [Kind::Uid, Kind::Gid];
    let texts = kinds.map(|kind| hostenv::file::read(&file(root, kind)).unwrap_or_default());
    let [uids, gids] = kinds.map(|kind| Outer::read(root, kind));
    free_range_within(&texts.each_ref().map(Vec::as_slice), &uids.common(&gids))
}

/// What is left of `there` from `first` on without `taken`, which is sorted.
fn gaps<'a>(
    there: &'a [Range],
    first: u32,
    taken: &'a [Range],
) -> impl Iterator<Item = Range> + 'a {
    there.iter().flat_map(move |there| {
        let mut start = there.start().max(first);
        let mut found = Vec::new();
        for range in taken.iter().filter(|range| range.start() < there.end()) {
            found.extend(Range::between(start, range.start()));
            start = start.max(range.end());
        }
        found.extend(Range::between(start, there.end()));
        found
    })
}

/// The lines that say something, with their numbers from 1.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let numbered = (1..).zip(text.split(|byte| *byte == b'\n'));
    numbered.filter(|(_, line)| !matches!(line.trim_ascii(), [] | [b'#', ..]))
}

/// `Ok(None)` is a range without ids.
fn parse_line(line: &[u8]) -> Result<Option<Range>, String> {
    let line = str::from_utf8(line).map_err(|_| "the line is not valid UTF-8".to_owned())?;
    if line.ends_with('\r') {
        return Err("the line ends with a carriage return, which newuidmap does not accept: \
                    convert the Windows line endings with `sed -i 's/\\r$//'`"
            .to_owned());
    }
    if line.trim_ascii() != line {
        return Err(
            "remove the blanks before or after it, which newuidmap does not accept".to_owned()
        );
    }
    let fields: Vec<&str> = line.split(':').collect();
    let &[_owner, start, count] = fields.as_slice() else {
        return Err(format!(
            "a line must have 3 fields separated by colons, but this one has {}",
            fields.len()
        ));
    };
    let start = number("first ID", start)?;
    let count = number("number of IDs", count)?;
    if count == 0 {
        return Ok(None);
    }
    match Range::new(start, count) {
        Some(range) => Ok(Some(range)),
        None => Err("the range extends beyond 4294967294, the largest ID".to_owned()),
    }
}

fn number(what: &str, text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("{what} `{text}` is not a number from 0 to 4294967295"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn ranges(list: &[(u32, u32)]) -> Vec<Range> {
        list.iter().map(|&(start, count)| Range::new(start, count).unwrap()).collect()
    }

    fn parse_for_me(text: &str) -> Result<Vec<Range>, SubidFileError> {
        parse(Path::new("/etc/subuid"), text.as_bytes(), "me", 1000)
    }

    #[test]
    fn lines_by_name_and_by_uid_in_the_order_of_the_file() {
        let text = "# subids\n\nroot:1:2\nme:300000:65536\n1000:100000:65536\nyou:5:5\nme:100:1\n10000:7:7";
        assert_eq!(
            parse_for_me(text).unwrap(),
            ranges(&[(300_000, 65536), (100_000, 65536), (100, 1)])
        );
        assert_eq!(crate::total(&parse_for_me(text).unwrap()), 131_073);
    }

    #[test]
    fn names_with_backslashes_and_spaces() {
        let text = b"CORP\\Jo Doe:100000:65536\nCORP\\Jo:1:1\n";
        let found = parse(Path::new("/etc/subuid"), text, "CORP\\Jo Doe", 70000).unwrap();
        assert_eq!(found, ranges(&[(100_000, 65536)]));
    }

    #[test]
    fn malformed_lines_of_others_are_no_concern_of_ours() {
        let text = "you:1\nnonsense\nyou:a:b\nyou:4294967295:9\nme:100000:65536\n";
        assert_eq!(parse_for_me(text).unwrap(), ranges(&[(100_000, 65536)]));
        let binary = b"\xff\xfe:1:1\nme:100000:65536\n";
        assert_eq!(parse(Path::new("f"), binary, "me", 1000).unwrap(), ranges(&[(100_000, 65536)]));
    }

    #[test]
    fn malformed_lines_of_ours_name_file_line_reason_and_remedy() {
        for (line, part) in [
            ("me:100000", "this one has 2"),
            ("me:100000:65536:1", "this one has 4"),
            ("me:abc:65536", "first ID `abc`"),
            ("me:100000:-1", "number of IDs `-1`"),
            ("1000:100000:", "number of IDs ``"),
            ("me:4294967295:1", "beyond 4294967294"),
            ("me:100000:4294967295", "beyond 4294967294"),
            ("me:99999999999:1", "first ID `99999999999`"),
            ("me", "this one has 1"),
            ("  me:100000:65536", "blanks before or after"),
            ("me:100000:65536\t", "blanks before or after"),
            ("me:100000:65536\r", "carriage return"),
            ("1000:100000:65536\r", "carriage return"),
        ] {
            let error = parse_for_me(&format!("you:1:1\n{line}\n")).unwrap_err().to_string();
            assert!(error.starts_with("/etc/subuid:2: "), "{error}");
            assert!(
                error.contains(part)
                    && error.contains(line.trim_ascii())
                    && error.contains("hint: "),
                "{error}"
            );
        }
    }

    #[test]
    fn ranges_without_ids_are_ignored() {
        assert_eq!(parse_for_me("me:100000:0\nme:5:5").unwrap(), ranges(&[(5, 5)]));
    }

    #[test]
    fn no_file_has_no_ranges() {
        let root = tempfile::tempdir().unwrap();
        let me = User { uid: 1000, gid: 100, name: "me".into(), home: "/".into() };
        assert!(read(root.path(), Kind::Uid, &me).unwrap().is_empty());
        fs::create_dir_all(root.path().join("etc/subgid")).unwrap();
        let error = read(root.path(), Kind::Gid, &me).unwrap_err().to_string();
        assert!(error.contains("etc/subgid"), "{error}");
    }

    #[test]
    fn the_suggested_range_is_free_in_both_files() {
        assert_eq!(free_range(&[]), Range::new(100_000, 65536));
        let uid = b"a:165536:65536\nb:100000:65536\nbroken\n";
        let gid = b"a:231072:10\n";
        assert_eq!(free_range(&[uid]), Range::new(231_072, 65536));
        assert_eq!(free_range(&[uid, gid]), Range::new(231_082, 65536));
        assert_eq!(free_range(&[b"a:200000:5"]), Range::new(100_000, 65536));
        assert_eq!(free_range(&[b"a:0:4294967295"]), None);
    }

    #[test]
    fn in_a_container_the_suggested_range_is_one_that_is_there() {
        let range = |start, count| Range::new(start, count).unwrap();
        let free = |texts: &[&[u8]], there: &[Range]| free_range_within(texts, there);
        assert_eq!(free(&[], &[range(0, 65536)]), Range::new(10_000, 55534));
        assert_eq!(free(&[b"a:10000:5000"], &[range(0, 65536)]), Range::new(15_000, 50534));
        assert_eq!(free(&[b"a:40000:1"], &[range(0, 65536)]), Range::new(10_000, 30000));
        assert_eq!(free(&[], &[range(0, 165_536)]), Range::new(100_000, 65536));
        assert_eq!(free(&[], &[range(0, 165_535)]), Range::new(65536, 65536));
        assert_eq!(free(&[], &[range(0, 1), range(200_000, 65536)]), Range::new(200_000, 65536));
        assert_eq!(free(&[], &[range(0, 1)]), None);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text: Vec<u8>) {
            let _ = (parse(Path::new("f"), &text, "me", 1000), free_range(&[&text]));
        }

        #[test]
        fn numbers_of_any_size_never_panic(lines in proptest::collection::vec("(me|1000|you)?:?-?[0-9]{0,11}:[0-9]{0,11}:?", 0..9)) {
            let _ = parse_for_me(&lines.join("\n"));
        }

        #[test]
        fn blanks_around_a_line_are_never_accepted(before in "[ \t]{0,2}", after in "[ \t\r]{0,2}") {
            let parsed = parse_for_me(&format!("{before}me:100000:65536{after}\n"));
            prop_assert_eq!(parsed.is_ok(), before.is_empty() && after.is_empty());
        }

        #[test]
        fn the_suggestion_touches_nothing(list in proptest::collection::vec((0u32..900_000, 1u32..200_000), 0..12)) {
            let text: String = list.iter().map(|(start, count)| format!("x:{start}:{count}\n")).collect();
            let free = free_range(&[text.as_bytes()]).unwrap();
            for (start, count) in list {
                prop_assert!(start + count <= free.start() || free.end() <= start);
            }
        }
    }
}
