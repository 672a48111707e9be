//! Becoming another program.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::report::Failure;

/// Replaces this process (execve(2)).
///
/// # Errors
/// Statuses as a shell has them: 127 when the program is missing, 126 when it cannot be executed.
pub(crate) fn become_program(mut command: Command) -> Result<Infallible, Failure> {
    let e = command.exec();
    let program = command.get_program().display();
    Err(match e.kind() {
        io::ErrorKind::NotFound => Failure::new(format!("cannot execute {program}: {e}"))
            .hint("check that the file and the interpreter or loader that it names exist")
            .code(127),
        _ => Failure::new(format!("cannot execute {program}: {e}")).code(126),
    })
}
