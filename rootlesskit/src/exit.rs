//! How a role ends: its exit status and the one line that says why.

use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// An error that carries the exit status to leave with; any other error means 1.
#[derive(Debug, thiserror::Error)]
#[error("{what} exited: {}", Words(*how))]
pub(crate) struct Exited {
    /// What ended, for the message: `child` or `command [sh -c …]`.
    pub(crate) what: String,
    pub(crate) how: ExitStatus,
}

impl Exited {
    pub(crate) fn check(what: impl Into<String>, how: ExitStatus) -> anyhow::Result<()> {
        if how.success() { Ok(()) } else { Err(Self { what: what.into(), how }.into()) }
    }

    /// The status itself; 255 after a signal, which RootlessKit's own tests rely on.
    fn code(&self) -> u8 {
        self.how.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }
}

/// A wait status in the words that Go prints; scripts grep for `user defined signal 1`.
pub(crate) struct Words(pub(crate) ExitStatus);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(signal) = self.0.signal() else {
            return write!(f, "exit status {}", self.0.code().unwrap_or_default());
        };
        let core = if self.0.core_dumped() { " (core dumped)" } else { "" };
        write!(f, "signal: {}{core}", signal_words(signal))
    }
}

fn signal_words(number: i32) -> String {
    // Real-time signals have no name.
    let Ok(signal) = Signal::try_from(number) else { return format!("signal {number}") };
    let words = match signal {
        Signal::SIGHUP => "hangup",
        Signal::SIGINT => "interrupt",
        Signal::SIGQUIT => "quit",
        Signal::SIGILL => "illegal instruction",
        Signal::SIGTRAP => "trace/breakpoint trap",
        Signal::SIGABRT => "aborted",
        Signal::SIGBUS => "bus error",
        Signal::SIGFPE => "floating point exception",
        Signal::SIGKILL => "killed",
        Signal::SIGUSR1 => "user defined signal 1",
        Signal::SIGSEGV => "segmentation fault",
        Signal::SIGUSR2 => "user defined signal 2",
        Signal::SIGPIPE => "broken pipe",
        Signal::SIGALRM => "alarm clock",
        Signal::SIGTERM => "terminated",
        _ => return format!("signal {number}"),
    };
    words.to_owned()
}

/// An error with its causes on one line, and below it the `hint:` lines of all of them.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut hints = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        // thiserror's transparent wrappers repeat their source.
        if causes.last().is_none_or(|last| !last.ends_with(what)) {
            causes.push(what.to_owned());
        }
        if !hint.is_empty() && !hints.contains(hint) {
            hints.push_str("\nhint: ");
            hints.push_str(hint);
        }
    }
    if hints.is_empty()
        && let Some(remedy) = error.chain().find_map(remedy)
    {
        hints.push_str("\nhint: ");
        hints.push_str(remedy);
    }
    causes.join(": ") + &hints
}

/// What helps against errors that any call may meet.
fn remedy(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match io.map(Errno::from_raw).or_else(|| cause.downcast_ref().copied())? {
        Errno::EMFILE => {
            Some("raise the limit of open files: ulimit -n 1024, or LimitNOFILE= in the service")
        }
        Errno::ETOOMANYREFS => Some(
            "other programs of this user have too many file descriptors in transit. Stop them, or raise the hard limit of \
             open files (ulimit -Hn, or LimitNOFILE= in the service)",
        ),
        _ => None,
    }
}

/// The text of an error as Go prints it, which documentation and tools match.
pub(crate) fn go_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().into_iter().flat_map(char::to_lowercase).chain(chars).collect()
}

/// Writes in one piece, so that lines of parent and child do not mix. Nobody may be listening (a closed
/// pipe, a full disk); the exit status says it all the same, which `eprintln!` would turn into a panic.
pub(crate) fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

/// Prints the error of a role, once, and turns it into the exit status.
pub(crate) fn finish(label: &str, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let text = format!("[rootlesskit:{label}] error: {}\n", describe(&error));
    say(std::io::stderr(), &text);
    error
        .chain()
        .find_map(|e| e.downcast_ref::<Exited>())
        .map_or(ExitCode::FAILURE, |e| e.code().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_last_and_once() {
        let error =
            anyhow::anyhow!("no space").context("cannot make x\nhint: make room").context("outer");
        assert_eq!(describe(&error), "outer: cannot make x: no space\nhint: make room");
    }

    #[test]
    fn too_few_descriptors_have_a_remedy() {
        let io = std::io::Error::from_raw_os_error(Errno::EMFILE as i32);
        let text = describe(&anyhow::Error::from(io).context("outer"));
        assert!(
            text.starts_with("outer: ") && text.contains("\nhint: ") && text.contains("ulimit")
        );
        assert!(describe(&Errno::EMFILE.into()).contains("ulimit"));
        assert!(describe(&Errno::ETOOMANYREFS.into()).contains("hint: other programs"));
        assert!(!describe(&Errno::ENOENT.into()).contains("hint"));
    }

    #[test]
    fn words_are_those_of_go() {
        let text =
            |raw| Exited { what: "child".into(), how: ExitStatus::from_raw(raw) }.to_string();
        assert_eq!(text(42 << 8), "child exited: exit status 42");
        assert_eq!(text(Signal::SIGUSR1 as i32), "child exited: signal: user defined signal 1");
        assert_eq!(text(11 | 0x80), "child exited: signal: segmentation fault (core dumped)");
        assert_eq!(text(37), "child exited: signal: signal 37");
        for (raw, code) in [(37, 255), (15, 255), (42 << 8, 42), (255 << 8, 255)] {
            assert_eq!(Exited { what: String::new(), how: ExitStatus::from_raw(raw) }.code(), code);
        }
        assert!(Exited::check("x", ExitStatus::from_raw(0)).is_ok());
    }
}
