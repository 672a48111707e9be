//! dockerd's status pipe, descriptor 3.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;

/// Number of the pipe in us and in the real proxy.
const NUMBER: i32 = 3;

/// The pipe, if dockerd gave us one.
#[derive(Debug)]
pub(crate) struct Status {
    pipe: Option<OwnedFd>,
    copy: Option<File>,
}

impl Status {
    /// Takes the descriptor. Must be called before anything else is opened. Started by hand there is no pipe; then
    /// nothing is reported.
    pub(crate) fn adopt() -> Self {
        let pipe = sys::inherit::adopt(NUMBER).ok();
        let copy = pipe.as_ref().and_then(|pipe| pipe.try_clone().ok()).map(File::from);
        Self { pipe, copy }
    }

    /// Leaves the pipe open in `command`, under the same number. Only the first call has an effect; what is
    /// reported afterwards goes through a copy.
    pub(crate) fn pass_to(&mut self, command: &mut Command) {
        if let Some(pipe) = self.pipe.take() {
            sys::command::inherit_fd(command, pipe);
        }
    }

    pub(crate) fn serving(&mut self) {
        self.write("0\n");
    }

    /// Reports a failure; dockerd shows the text to the user.
    pub(crate) fn failed(&mut self, text: &str) {
        self.write(&format!("1\n{text}"));
    }

    fn write(&mut self, text: &str) {
        if let Some(pipe) = &mut self.copy {
            // A closed pipe means that dockerd has stopped listening.
            pipe.write_all(text.as_bytes()).ok();
        }
    }
}
