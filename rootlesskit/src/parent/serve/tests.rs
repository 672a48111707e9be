//! A helper that is being started.

use std::io::{Write as _, pipe};
use std::process::Command;

use super::*;

/// A helper that does nothing, and the end of the pipe by which it says that it is ready.
fn starting() -> (Starting, std::io::PipeWriter) {
    let (ready, say) = pipe().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec sleep 1000"]);
    (Starting::spawn("script", "", command, ready.into()).unwrap(), say)
}

/// Whether it is ready within a moment. Others on the same thread get their turn meanwhile.
async fn serves_soon(starting: &Starting, ready: &AsyncFd<OwnedFd>) -> bool {
    let mut others = 0;
    let moment = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            others += 1;
        }
    };
    let serves = tokio::select! {
        () = serves(starting, ready) => true,
        () = moment => false,
    };
    assert!(serves || others == 10);
    serves
}

#[test]
fn a_helper_that_closes_its_end_without_a_word_keeps_nobody_busy() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for speaks in [true, false] {
            let (starting, mut say) = starting();
            let ready = sys::readable::register(starting.as_fd().try_clone_to_owned().unwrap());
            let ready = ready.unwrap();
            assert!(!serves_soon(&starting, &ready).await, "nothing said");
            if speaks {
                say.write_all(b"1").unwrap();
            }
            drop(say);
            assert_eq!(serves_soon(&starting, &ready).await, speaks);
            assert!(!serves_soon(&starting, &ready).await, "closed");
            starting.process().kill().unwrap();
            let helper = starting.into_helper();
            assert!(helper.process.wait_ended(Duration::from_secs(60)).unwrap());
            sys::wait::one(helper.process.pid()).unwrap();
        }
    });
}

#[test]
fn what_a_helper_prints_in_pieces_is_heard_in_lines() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (output, mut helper) = pipe().unwrap();
        let mut output = Output::new(output).unwrap();
        for piece in ["lease ", "of ", "12 s"] {
            helper.write_all(piece.as_bytes()).unwrap();
            let soon = tokio::time::timeout(Duration::from_millis(20), output.lines()).await;
            assert!(soon.is_err(), "{piece}: {soon:?}");
        }
        helper.write_all(b"\r\nsecond\n\nthi").unwrap();
        assert_eq!(output.lines().await.unwrap(), "lease of 12 s; second");
        helper.write_all(&[b'r'; 5000]).unwrap();
        let mut long = String::new();
        while long.len() < 4096 {
            long += &output.lines().await.unwrap();
        }
        assert!(long.starts_with("thirrr"), "{long}");
        helper.write_all("d: ä, then nothing".as_bytes()).unwrap();
        drop(helper);
        assert!(output.rest().ends_with("rrd: ä, then nothing"));

        let (output, mut helper) = pipe().unwrap();
        let output = Output::new(output).unwrap();
        for number in 0..2000 {
            writeln!(helper, "line {number}").unwrap();
        }
        helper.write_all(b"fatal: no device\n").unwrap();
        let rest = output.rest();
        assert!(
            rest.starts_with("line 1") && rest.ends_with("; line 1999; fatal: no device"),
            "{rest}"
        );
    });
}

#[test]
fn the_last_line_of_a_helper_needs_no_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (output, mut helper) = pipe().unwrap();
        let mut output = Output::new(output).unwrap();
        helper.write_all(b"first\nlast").unwrap();
        assert_eq!(output.lines().await.unwrap(), "first");
        drop(helper);
        assert_eq!(output.lines().await.unwrap(), "last");
        assert_eq!(output.lines().await, None);
    });
}
