//! The program beside stand-ins of cargo and xtask.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The program in `dir`, with a cargo that does what the script says.
fn start(dir: &Path, cargo: &str) -> Command {
    script(&dir.join("cargo"), cargo);
    let mut command = Command::new(dir.join("xtask-start"));
    command.env("CARGO", dir.join("cargo")).args(["test", "a filter"]).stdin(Stdio::null());
    command
}

// One test, because it writes programs and runs them: a process that another test starts in between would keep them open.
#[test]
fn a_build_that_takes_time_is_said_and_one_that_does_not_is_silent() {
    // Beside the program, for the link.
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(place.path().join("CACHEDIR.TAG"), "").unwrap();
    let dir = &place.path().join("release");
    fs::create_dir(dir).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_xtask-start"), dir.join("xtask-start")).unwrap();
    script(&dir.join("xtask"), "printf '%s|' \"$@\"; exit 7");

    // It ends when the test has read what is said.
    let slow = "echo \"$@\"; until [ -e \"${0%/*}/go\" ]; do sleep 0.05; done";
    let mut child = start(dir, slow).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(said.starts_with("building xtask"), "{said}");
    fs::write(dir.join("go"), "").unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(7), "{said}");
    assert_eq!(out.stdout, b"build --quiet --package xtask --profile release\ntest|a filter|");

    // Several, because a busy machine may make a short build a long one.
    let silent = (0..20).any(|_| {
        let out = start(dir, "exit 0").output().unwrap();
        assert_eq!((out.status.code(), &*out.stdout), (Some(7), &b"test|a filter|"[..]));
        out.stderr.is_empty()
    });
    assert!(silent);

    let out = start(dir, "echo 'error: no such crate' >&2; exit 101").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!((&*out.stdout, &*out.stderr), (&b""[..], &b"error: no such crate\n"[..]));
}
