//! Users without libc.
//!
//! A static binary that called `getpwuid` would load NSS modules of the host's libc. So `<root>/etc/passwd` is read
//! here, and what it does not know is asked from the program `getent`, which does load them (LDAP, SSSD, systemd-homed).
//! If that fails too, `$USER` and `$HOME` are believed, as Go's `os/user` does in a static binary.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Env, file, helper, vars};

/// `getent` asks servers; a dead one must not block the start for long.
const GETENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A line of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Login name. May contain backslashes and spaces (`DOMAIN\user`).
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// A user that nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Neither passwd, nor getent, nor the environment knows the user.
    #[error(
        "user {uid} was not found in {} or with getent ({getent})\nhint: add the user to the user database, or set USER and HOME",
        passwd.display()
    )]
    Unknown {
        /// The id looked for.
        uid: u32,
        /// The file that was read.
        passwd: PathBuf,
        /// What became of `getent`.
        getent: String,
    },
    /// The user database cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
}

/// Finds a user by id: `<root>/etc/passwd`, then `getent passwd`, then `$USER` and `$HOME` with the real group id of
/// this process.
///
/// # Errors
/// Nobody knows the user, or the file exists and cannot be read.
pub fn lookup_uid(root: &Path, uid: u32, env: &Env) -> Result<User, UserError> {
    let is_it = |user: &User| user.uid == uid;
    let passwd = root.join("etc/passwd");
    let text = match file::read(&passwd) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(UserError::Read(passwd, source)),
    };
    if let Some(user) = parse(&text).find(is_it) {
        return Ok(user);
    }
    let getent = match helper::run("getent", &["passwd", &uid.to_string()], env, GETENT_TIMEOUT) {
        // A user of another id may have the number as a name.
        Ok(Some(output)) => match parse(&output.stdout).find(is_it) {
            Some(user) => return Ok(user),
            // getent(1): status 2 means that the key is not in the database.
            None if output.status.code() == Some(2) => "no such user".to_owned(),
            None => format!("getent failed: {}", output.status),
        },
        Ok(None) => "getent is not in PATH".to_owned(),
        Err(error) => error.to_string(),
    };
    let name = env.nonempty(vars::USER).and_then(OsStr::to_str);
    let (Some(name), Some(home)) = (name, env.nonempty(vars::HOME)) else {
        return Err(UserError::Unknown { uid, passwd, getent });
    };
    let gid = nix::unistd::getgid().as_raw();
    Ok(User { uid, gid, name: name.to_owned(), home: home.into() })
}

/// The users of a text in the format of passwd(5). Lines that are none, such as comments and the `+` of NIS, are skipped.
fn parse(text: &[u8]) -> impl Iterator<Item = User> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<User> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let &[name, _password, uid, gid, _gecos, home, ..] = fields.as_slice() else { return None };
    let name = str::from_utf8(name).ok()?;
    if name.is_empty() || name.starts_with(['+', '-', '#']) {
        return None;
    }
    Some(User {
        uid: str::from_utf8(uid).ok()?.parse().ok()?,
        gid: str::from_utf8(gid).ok()?.parse().ok()?,
        name: name.to_owned(),
        home: Path::new(OsStr::from_bytes(home)).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;
    use std::fs;

    /// A root with a passwd file and a `bin` with a `getent` of the given body.
    fn root(passwd: &str, getent: &str) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        testing::script(&dir.path().join("bin"), "getent", getent);
        let env = [(vars::PATH, dir.path().join("bin"))].into_iter().collect();
        (dir, env)
    }

    fn user(uid: u32, gid: u32, name: &str, home: &str) -> User {
        User { uid, gid, name: name.to_owned(), home: home.into() }
    }

    const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken:line\n+@nis::::::\n\
                          me:x:1000:100:Me,,,:/home/me:/bin/sh\nlast:x:1001:1001::/home/last";

    #[test]
    fn passwd_comes_first_and_odd_lines_are_skipped() {
        let _lock = testing::lock();
        let (dir, env) = root(PASSWD, "echo asked >&2; exit 1");
        assert_eq!(lookup_uid(dir.path(), 1000, &env).unwrap(), user(1000, 100, "me", "/home/me"));
        assert_eq!(
            lookup_uid(dir.path(), 1001, &env).unwrap(),
            user(1001, 1001, "last", "/home/last")
        );
        assert_eq!(lookup_uid(dir.path(), 0, &env).unwrap(), user(0, 0, "root", "/root"));
    }

    #[test]
    fn users_known_only_to_nss_come_from_getent() {
        let _lock = testing::lock();
        let line = r#"[ "$1" = passwd ] || exit 9; printf '%s\n' 'CORP\Jo Doe:*:70000:70001::/h/jo:/bin/sh'"#;
        let (dir, env) = root(PASSWD, line);
        let jo = user(70000, 70001, "CORP\\Jo Doe", "/h/jo");
        assert_eq!(lookup_uid(dir.path(), 70000, &env).unwrap(), jo);
        // An answer about somebody else is no answer.
        assert!(lookup_uid(dir.path(), 5, &env).is_err());
    }

    #[test]
    fn the_environment_is_the_last_resort() {
        let _lock = testing::lock();
        let (dir, mut env) = root(PASSWD, "exit 2");
        env.set(vars::USER, "me2");
        let error = lookup_uid(dir.path(), 4242, &env).unwrap_err().to_string();
        assert!(
            error.contains("4242") && error.contains("no such user") && error.contains("hint: "),
            "{error}"
        );
        env.set(vars::HOME, "/h");
        let gid = nix::unistd::getgid().as_raw();
        assert_eq!(lookup_uid(dir.path(), 4242, &env).unwrap(), user(4242, gid, "me2", "/h"));
    }

    #[test]
    fn no_files_and_no_programs_is_an_error_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let error = lookup_uid(dir.path(), 1, &Env::default()).unwrap_err().to_string();
        assert!(error.contains("etc/passwd") && error.contains("not in PATH"), "{error}");
    }

    proptest! {
        #[test]
        fn no_passwd_makes_it_panic(text: Vec<u8>) {
            let _ = parse(&text).count();
        }

        #[test]
        fn well_formed_lines_are_found(name in "[a-z\\\\ ][a-z0-9 ]{0,8}", uid: u32, gid: u32) {
            let text = format!("junk\n{name}:x:{uid}:{gid}:::\n");
            let found: Vec<User> = parse(text.as_bytes()).collect();
            prop_assert_eq!(found, vec![user(uid, gid, &name, "")]);
        }
    }
}
