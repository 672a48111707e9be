//! Tests of the sources, with roots made up on the spot and stubs for `getsubids`.

use super::*;
use crate::testing;
use std::fs;

/// A root with these files below `etc` and a `getsubids` with this body.
fn root(files: &[(&str, &str)], getsubids: &str) -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join("etc").join(name), text).unwrap();
    }
    testing::script(dir.path(), "getsubids", getsubids);
    let env = [(vars::PATH, dir.path())].into_iter().collect();
    (dir, env)
}

fn me() -> User {
    User { uid: 1000, gid: 100, name: "me".into(), home: "/home/me".into() }
}

fn subids(uid: u32, gid: u32) -> Subids {
    let range = |start| vec![Range::new(start, 65536).unwrap()];
    Subids { uid: range(uid), gid: range(gid) }
}

const FILES: [(&str, &str); 2] =
    [("subuid", "me:100000:65536\n"), ("subgid", "1000:200000:65536\n")];
const DYNAMIC: &str = r#"[ "$1" = -g ] && echo "0: me 400000 65536" || echo "0: me 300000 65536""#;

#[test]
fn each_source_looks_where_it_says() {
    let _lock = testing::lock();
    let (dir, env) = root(&FILES, DYNAMIC);
    assert_eq!(lookup(Source::Static, dir.path(), &me(), &env).unwrap(), subids(100_000, 200_000));
    assert_eq!(lookup(Source::Dynamic, dir.path(), &me(), &env).unwrap(), subids(300_000, 400_000));
}

#[test]
fn auto_asks_getsubids_only_when_it_may_know_more_than_the_files() {
    let _lock = testing::lock();
    let (from_files, from_nss) = (subids(100_000, 200_000), subids(300_000, 400_000));
    for (nsswitch, expected) in [
        ("", &from_files),
        ("passwd: files sss\n", &from_files),
        ("subid: files # sss\n", &from_files),
        ("# subid: sss\n", &from_files),
        ("passwd: files\nsubid:\tsss\n", &from_nss),
        ("subid: files sss\n", &from_nss),
        ("subid:\n", &from_nss),
    ] {
        let (dir, env) = root(&FILES, DYNAMIC);
        fs::write(dir.path().join("etc/nsswitch.conf"), nsswitch).unwrap();
        assert_eq!(
            &lookup(Source::Auto, dir.path(), &me(), &env).unwrap(),
            expected,
            "{nsswitch:?}"
        );
    }
    let (dir, mut env) = root(&FILES, DYNAMIC);
    assert_eq!(lookup(Source::Auto, dir.path(), &me(), &env).unwrap(), from_files);
    env.set(vars::GETSUBIDS, dir.path().join("getsubids"));
    assert_eq!(lookup(Source::Auto, dir.path(), &me(), &env).unwrap(), from_nss);
}

#[test]
fn auto_asks_getsubids_for_users_the_files_do_not_know() {
    let _lock = testing::lock();
    let (dir, env) = root(&[("subuid", "you:1:1\n")], DYNAMIC);
    assert_eq!(lookup(Source::Auto, dir.path(), &me(), &env).unwrap(), subids(300_000, 400_000));
}

#[test]
fn auto_falls_back_to_the_files() {
    let _lock = testing::lock();
    for getsubids in ["exit 1", "exit 0", "echo nonsense", r#"[ "$1" = -g ] || echo "0: me 1 1""#] {
        let (dir, env) = root(&FILES, getsubids);
        fs::write(dir.path().join("etc/nsswitch.conf"), "subid: sss\n").unwrap();
        assert_eq!(
            lookup(Source::Auto, dir.path(), &me(), &env).unwrap(),
            subids(100_000, 200_000),
            "{getsubids}"
        );
    }
    let (dir, env) = root(&FILES, "exit 1");
    assert!(matches!(
        lookup(Source::Dynamic, dir.path(), &me(), &env),
        Err(SourceError::Dynamic(_))
    ));
}

#[test]
fn no_ranges_names_uid_and_user() {
    let _lock = testing::lock();
    let (dir, env) = root(&[], "exit 1");
    for source in [Source::Auto, Source::Static] {
        let error = lookup(source, dir.path(), &me(), &env).unwrap_err().to_string();
        assert!(error.starts_with("No subuid ranges found for user 1000 (\"me\")"), "{error}");
    }
    let (dir, env) = root(&FILES[..1], "exit 0");
    let error = lookup(Source::Auto, dir.path(), &me(), &env).unwrap_err().to_string();
    assert!(error.starts_with("No subgid ranges found for user 1000 (\"me\")"), "{error}");
    let error = lookup(Source::Dynamic, dir.path(), &me(), &env).unwrap_err().to_string();
    assert!(
        error.starts_with("No subuid ranges found for user 1000 (\"me\") by getsubids"),
        "{error}"
    );
}

#[test]
fn the_remedy_is_a_command_with_a_free_range() {
    let _lock = testing::lock();
    let (dir, env) =
        root(&[("subuid", "you:100000:65536\n"), ("subgid", "me:165536:65536\n")], "exit 1");
    let error = lookup(Source::Auto, dir.path(), &me(), &env).unwrap_err().to_string();
    assert!(
        error.ends_with("\nhint: run `sudo usermod --add-subuids 231072-296607 me`"),
        "{error}"
    );
    let (dir, env) = root(&[], "exit 1");
    let odd = User { name: "CORP\\o'b".into(), ..me() };
    let error = lookup(Source::Auto, dir.path(), &odd, &env).unwrap_err().to_string();
    let command =
        r"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 'CORP\o'\''b'";
    assert!(error.contains(command), "{error}");
}

#[test]
fn in_a_container_the_remedy_is_a_range_that_is_there() {
    let _lock = testing::lock();
    let (dir, env) = root(&[], "exit 1");
    fs::create_dir_all(dir.path().join("proc/self")).unwrap();
    for file in ["uid_map", "gid_map"] {
        fs::write(dir.path().join("proc/self").join(file), "0 1000000 65536\n").unwrap();
    }
    let error = lookup(Source::Auto, dir.path(), &me(), &env).unwrap_err().to_string();
    let command = "sudo usermod --add-subuids 10000-65533 --add-subgids 10000-65533 me";
    assert!(error.contains(command), "{error}");
}

#[test]
fn a_malformed_line_of_ours_is_said_when_nothing_else_helps() {
    let _lock = testing::lock();
    let files = [("subuid", "me:100000\n"), ("subgid", "me:1:1\n")];
    let (dir, env) = root(&files, "exit 1");
    assert!(matches!(lookup(Source::Auto, dir.path(), &me(), &env), Err(SourceError::File(_))));
    let (dir, env) = root(&files, DYNAMIC);
    assert_eq!(lookup(Source::Auto, dir.path(), &me(), &env).unwrap(), subids(300_000, 400_000));
}

#[test]
fn unknown_words_are_named_with_the_choices() {
    assert_eq!("auto".parse::<Source>().unwrap(), Source::Auto);
    assert_eq!("".parse::<Source>().unwrap(), Source::Auto);
    let error = "AUTO".parse::<Source>().unwrap_err().to_string();
    assert!(
        error.contains("unknown subid source `AUTO`") && error.contains("auto, dynamic or static"),
        "{error}"
    );
}
