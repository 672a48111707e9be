//! Shell scripts that set up network namespaces, as root.

use std::process::Command;

use anyhow::Result;
use xtask_support::command;

/// Runs a script, in a network namespace if one is given. It ends at the first command that fails.
pub(crate) fn run(netns: Option<&str>, text: &str, args: &[String]) -> Result<()> {
    let mut command = match netns {
        Some(netns) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={netns}")).arg("sh");
            command
        }
        None => Command::new("sh"),
    };
    command::quietly(command.args(["-ec", text, "sh"]).args(args)).map(drop)
}

/// The network namespace of a process.
pub(crate) fn netns_of(pid: i32) -> String {
    format!("/proc/{pid}/ns/net")
}
