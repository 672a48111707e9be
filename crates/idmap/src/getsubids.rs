//! The program `getsubids` (getsubids(1), shadow 4.10 and later), which asks the NSS module that `subid:` in
//! nsswitch.conf(5) names.
//!
//! It is run for the user's name and for the decimal uid, because modules differ in what they take, and for both kinds of
//! ids. The four processes run side by side, for their start is what takes the time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hostenv::helper::{Helper, HelperError, excerpt};
use hostenv::user::User;
use hostenv::{Env, vars};

use crate::{Kind, Range};

/// Modules ask servers; a dead one must not block the start for long.
const GETSUBIDS_TIMEOUT: Duration = Duration::from_secs(5);

/// More of a line than this, in characters, is not quoted in a message.
const MAX_QUOTED: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetsubidsError {
    /// There is no such program.
    #[error("{0} is not an executable program in PATH")]
    Missing(String),
    /// It could not be run.
    #[error(transparent)]
    Run(#[from] HelperError),
    /// It failed: the command line, how it ended, and what it printed.
    #[error("`{0}` failed ({1}): {2}")]
    Failed(String, std::process::ExitStatus, String),
    /// It printed something else than ranges: the command line, the line, and what is wrong with it.
    #[error("`{0}` printed `{1}`: {2}")]
    Malformed(String, String, &'static str),
}

/// The user's ranges as `getsubids` (or the program that `$GETSUBIDS` names) knows them: first those of the name, then
/// those of the uid, without exact duplicates.
///
/// # Errors
/// There is no such program, or the lookups by name and by uid fail both, for user ids or for group ids.
pub fn lookup(user: &User, env: &Env) -> Result<(Vec<Range>, Vec<Range>), GetsubidsError> {
    let program = find(env)?;
    let owners = [user.name.clone(), user.uid.to_string()];
    let start = |kind| owners.each_ref().map(|owner| Lookup::start(&program, kind, owner, env));
    // Everything is started before anything is waited for.
    let (uids, gids) = (start(Kind::Uid), start(Kind::Gid));
    Ok((collect(uids)?, collect(gids)?))
}

fn find(env: &Env) -> Result<PathBuf, GetsubidsError> {
    let name = env.nonempty(vars::GETSUBIDS).unwrap_or("getsubids".as_ref());
    env.find_program(name)
        .ok_or_else(|| GetsubidsError::Missing(name.to_string_lossy().into_owned()))
}

/// One running `getsubids`.
struct Lookup<'a> {
    owner: &'a str,
    helper: Helper,
}

impl<'a> Lookup<'a> {
    fn start(
        program: &Path,
        kind: Kind,
        owner: &'a str,
        env: &Env,
    ) -> Result<Self, GetsubidsError> {
        let args = kind.either(vec![owner], vec!["-g", owner]);
        Ok(Lookup { owner, helper: Helper::start(program, &args, env, GETSUBIDS_TIMEOUT)? })
    }

    fn finish(self) -> Result<Vec<Range>, GetsubidsError> {
        let command_line = self.helper.command_line().to_owned();
        let output = self.helper.finish()?;
        if !output.status.success() {
            return Err(GetsubidsError::Failed(command_line, output.status, output.text()));
        }
        parse(&output.stdout, self.owner)
            .map_err(|(line, reason)| GetsubidsError::Malformed(command_line, line, reason))
    }
}

fn collect(lookups: [Result<Lookup<'_>, GetsubidsError>; 2]) -> Result<Vec<Range>, GetsubidsError> {
    match lookups.map(|lookup| lookup.and_then(Lookup::finish)) {
        [Err(error), Err(_)] => Err(error),
        some => {
            let mut ranges = Vec::new();
            for range in some.into_iter().flatten().flatten() {
                if !ranges.contains(&range) {
                    ranges.push(range);
                }
            }
            Ok(ranges)
        }
    }
}

/// Parses lines like `0: me 100000 65536`. `owner` is the user that was asked for: a name may contain spaces.
fn parse(text: &[u8], owner: &str) -> Result<Vec<Range>, (String, &'static str)> {
    let text = String::from_utf8_lossy(text);
    let mut ranges = Vec::new();
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        // A program that is no getsubids may print anything.
        let quoted = || excerpt(line, MAX_QUOTED);
        let bad = |reason| (quoted(), reason);
        let (_index, rest) = line.split_once(':').ok_or(bad("expected `N: OWNER START COUNT`"))?;
        let rest = rest.trim_start();
        let numbers = match rest.strip_prefix(owner) {
            Some(numbers) if numbers.starts_with(char::is_whitespace) => numbers,
            _ => rest.split_once(char::is_whitespace).map_or("", |(_owner, numbers)| numbers),
        };
        let mut fields = numbers.split_whitespace();
        let (Some(start), Some(count)) = (fields.next(), fields.next()) else {
            return Err(bad("expected `N: OWNER START COUNT`"));
        };
        if fields.next().is_some() {
            tracing::warn!("getsubids printed `{}`: ignoring the text after the count", quoted());
        }
        let (Ok(start), Ok(count)) = (start.parse(), count.parse()) else {
            return Err(bad("START and COUNT must be numbers from 0 to 4294967295"));
        };
        match Range::new(start, count) {
            Some(range) => ranges.push(range),
            None if count == 0 => {
                tracing::warn!("getsubids printed `{}`: ignoring a range of 0 IDs", quoted());
            }
            None => return Err(bad("the range extends beyond 4294967294, the largest ID")),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn range(start: u32, count: u32) -> Range {
        Range::new(start, count).unwrap()
    }

    fn jo() -> User {
        User { uid: 70000, gid: 70001, name: "CORP\\Jo Doe".into(), home: "/".into() }
    }

    /// An environment in which `getsubids` has the given body.
    fn stub(body: &str) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        testing::script(dir.path(), "getsubids", body);
        let env = [(vars::PATH, dir.path())].into_iter().collect();
        (dir, env)
    }

    #[test]
    fn ranges_of_name_and_uid_without_duplicates() {
        let _lock = testing::lock();
        let (_dir, env) = stub(
            r#"case "$*" in
            'CORP\Jo Doe') printf '%s\n' '0: CORP\Jo Doe 100000 65536' '1: CORP\Jo Doe 500000 10';;
            70000) echo '0: 70000 500000 10'; echo '1: 70000 600000 5';;
            '-g CORP\Jo Doe') exit 1;;
            '-g 70000') echo '# note'; echo; echo '0: 70000 700000 1';;
            esac"#,
        );
        let (uids, gids) = lookup(&jo(), &env).unwrap();
        assert_eq!(uids, [range(100_000, 65536), range(500_000, 10), range(600_000, 5)]);
        assert_eq!(gids, [range(700_000, 1)]);
    }

    #[test]
    fn both_lookups_failing_is_an_error_that_quotes_the_program() {
        let _lock = testing::lock();
        let (_dir, env) = stub("echo 'Error fetching ranges' >&2; exit 1");
        let error = lookup(&jo(), &env).unwrap_err().to_string();
        assert!(
            error.contains("Jo Doe` failed") && error.contains("Error fetching ranges"),
            "{error}"
        );
    }

    #[test]
    fn the_variable_names_the_program() {
        let _lock = testing::lock();
        let (dir, mut env) = stub("exit 1");
        testing::script(dir.path(), "other", "echo 0: x 1 2");
        env.set(vars::GETSUBIDS, dir.path().join("other"));
        assert_eq!(lookup(&jo(), &env).unwrap(), (vec![range(1, 2)], vec![range(1, 2)]));
        env.set(vars::GETSUBIDS, "nowhere");
        assert_eq!(
            lookup(&jo(), &env).unwrap_err().to_string(),
            "nowhere is not an executable program in PATH"
        );
    }

    #[test]
    fn odd_lines() {
        assert_eq!(parse(b"0: me 1 2 extra", "me").unwrap(), [range(1, 2)]);
        assert_eq!(parse(b"0: me 1 0\n1: me 5 5", "me").unwrap(), [range(5, 5)]);
        for bad in [
            "nonsense",
            "0: me 1",
            "0: me",
            "0:",
            "0: me a b",
            "0: me 1 -2",
            "0: me 4294967295 1",
            "0: me 1 99999999999",
        ] {
            assert!(parse(bad.as_bytes(), "me").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_without_end_is_quoted_in_part() {
        let (line, _) = parse("x".repeat(100_000).as_bytes(), "me").unwrap_err();
        assert_eq!(line.chars().count(), MAX_QUOTED + 1);
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(text: Vec<u8>, owner: String) {
            let _ = parse(&text, &owner);
        }

        #[test]
        fn whatever_getsubids_prints_is_read(owner in "[a-z\\\\][a-z0-9\\\\ ]{0,9}[a-z0-9]", start in 0u32..1 << 31, count in 1u32..1 << 30) {
            let line = format!("0: {owner} {start} {count}\n");
            prop_assert_eq!(parse(line.as_bytes(), &owner).unwrap(), vec![range(start, count)]);
        }
    }
}
