use super::*;
use nix::sys::wait::{WaitStatus, waitpid};

fn c(s: &str) -> CString {
    CString::new(s).unwrap()
}

fn shell(script: &str) -> SpawnConfig {
    SpawnConfig {
        program: c("/bin/sh"),
        argv: vec![c("sh"), c("-c"), c(script)],
        env: vec![c("PATH=/usr/bin:/bin")],
        reset_signals: true,
        ..SpawnConfig::default()
    }
}

#[test]
#[cfg_attr(miri, ignore = "miri makes no processes")]
fn a_program_runs_with_its_own_pid_in_variables() {
    let script = "test \"$LISTEN_PID $OTHER\" = \"$$ $$\" && exit 42";
    let plan = SpawnConfig { own_pid: vec![c("LISTEN_PID"), c("OTHER")], ..shell(script) };
    let p = program(&plan).unwrap();
    assert_eq!(waitpid(p.pid(), None), Ok(WaitStatus::Exited(p.pid(), 42)));
}

#[test]
#[cfg_attr(miri, ignore = "miri makes no processes")]
fn an_exec_that_fails_says_why() {
    let plan = SpawnConfig { program: c("/nonexistent/x"), ..shell("") };
    assert_eq!(program(&plan).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let plan = SpawnConfig { program: c("/etc/passwd"), ..shell("") };
    assert_eq!(program(&plan).unwrap_err().raw_os_error(), Some(libc::EACCES));
}

#[test]
#[cfg_attr(miri, ignore = "miri makes no processes")]
fn signals_are_reset_and_files_limited() {
    let nofile = Nofile { soft: 77, hard: 80 };
    let script = "test $(ulimit -n) = 77 && grep -q '^SigBlk:.0000000000000000' /proc/self/status";
    let plan = SpawnConfig { nofile: Some(nofile), ..shell(script) };
    let p = program(&plan).unwrap();
    assert_eq!(waitpid(p.pid(), None), Ok(WaitStatus::Exited(p.pid(), 0)));
}

#[test]
#[cfg_attr(miri, ignore = "miri makes no processes")]
fn a_process_whose_parent_has_died_already_executes_nothing() {
    let plan = shell("exit 42");
    let mut raw = Raw::new(&plan).unwrap();
    // As if we were not its parent any more.
    raw.parent += 1;
    let (status, status_w) = io::pipe().unwrap();
    let p = start(0, &mut raw, None, status_w.as_raw_fd()).unwrap();
    drop(status_w);
    assert_eq!(exec_result(status).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert_eq!(waitpid(p.pid(), None), Ok(WaitStatus::Exited(p.pid(), 127)));
}

#[test]
fn pid_digits() {
    let mut buf = *b"............";
    write_pid(&mut buf, 4_194_304);
    assert_eq!(&buf[..7], b"4194304");
    write_pid(&mut buf, 7);
    assert_eq!(buf[0], b'7');
}

#[test]
fn arguments_and_the_environment_are_what_the_new_process_reads() {
    let plan = SpawnConfig { own_pid: vec![c("LISTEN_PID"), c("OTHER")], ..shell("exit 42") };
    let mut raw = Raw::new(&plan).unwrap();
    raw.write_own_pid(1234);
    let strings = |pointers: &[*const libc::c_char]| {
        let (last, pointers) = pointers.split_last().unwrap();
        assert!(last.is_null());
        let read = |pointer: &*const libc::c_char| {
            // SAFETY: a string of `plan` or `raw`, with NUL at its end.
            unsafe { std::ffi::CStr::from_ptr(*pointer) }.to_str().unwrap().to_owned()
        };
        pointers.iter().map(read).collect::<Vec<_>>()
    };
    assert_eq!(strings(&raw.argv), ["sh", "-c", "exit 42"]);
    let env = ["PATH=/usr/bin:/bin", "LISTEN_PID=1234", "OTHER=1234"];
    assert_eq!(strings(&raw.env), env);
}
