//! The packet rules by means of iptables(8), for kernels without nf_tables and for who asks for it.
//!
//! The caller must not reap children with `wait4(-1)` meanwhile, or the exit status of the program is lost.

use std::io;
use std::process::{Command, Output, Stdio};

use crate::error::During;
use crate::{Error, Result};

/// Adds the rules of [`super`] with `program` (`iptables` or `ip6tables`), those that exist excepted.
pub(super) fn install(program: &str, dial_mark: u32, reply_mark: u32) -> Result<()> {
    let output =
        format!("OUTPUT -p tcp -m mark --mark {dial_mark} -j CONNMARK --set-mark {reply_mark}");
    let prerouting = format!(
        "PREROUTING -p tcp -m connmark --mark {reply_mark} -j MARK --set-mark {reply_mark}"
    );
    for rule in [output, prerouting] {
        if !run(program, "-C", &rule)?.status.success() {
            let done = run(program, "-A", &rule)?;
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr);
                let said = said.lines().next().unwrap_or("no message");
                let cause = io::Error::other(format!("{said} ({})", done.status));
                return Err(Error::new(line(program, "-A", &rule), cause));
            }
        }
    }
    Ok(())
}

/// Waits at most 5 seconds for the lock of iptables.
fn run(program: &str, action: &str, rule: &str) -> Result<Output> {
    Command::new(program)
        .args(["-w", "5", "-t", "mangle", action])
        .args(rule.split(' '))
        .stdin(Stdio::null())
        .output()
        .during(|| line(program, action, rule))
}

fn line(program: &str, action: &str, rule: &str) -> String {
    format!("run {program} -t mangle {action} {rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_named() {
        let error = install("iptables-that-is-not-installed", 101, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            error.to_string().contains("iptables-that-is-not-installed -t mangle -C OUTPUT"),
            "{error}"
        );
    }
}
