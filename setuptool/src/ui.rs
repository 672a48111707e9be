//! What the user reads: `[INFO]` lines on standard output, `[WARNING]` and `[ERROR]` lines on standard error, and
//! the commands that are run, as the shell's `+ command` lines, on standard error.
//!
//! The levels are coloured on a terminal only, and not when `NO_COLOR` is set (<https://no-color.org>) or the
//! terminal is dumb. Control characters, which names of files and processes and a log may have, are escaped, since a terminal
//! obeys them ([`visible`], [`name`]). Everything else is printed as it is: nothing interprets backslashes, which names of
//! domain users have.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::ffi::OsStrExt as _;

use hostenv::Env;

/// Writes to both streams, in the order of the calls even if they end in one file.
pub(crate) struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    colour_out: bool,
    colour_err: bool,
}

impl Ui {
    pub(crate) fn new(env: &Env) -> Self {
        let wanted = hostenv::colour::is_wanted(env);
        Self {
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        let nowhere = || Box::new(io::sink());
        Self { out: nowhere(), err: nowhere(), colour_out: false, colour_err: false }
    }

    pub(crate) fn info(&mut self, text: &str) {
        let line = level("INFO", 104, self.colour_out, text);
        self.plain(&line);
    }

    pub(crate) fn warning(&mut self, text: &str) {
        let line = level("WARNING", 101, self.colour_err, text);
        self.raw(&line);
    }

    pub(crate) fn error(&mut self, text: &str) {
        let line = level("ERROR", 101, self.colour_err, text);
        self.raw(&line);
    }

    /// A command that is about to be run, like the shell's `set -x`.
    pub(crate) fn trace(&mut self, command: &str) {
        self.aside(&format!("+ {command}"));
    }

    pub(crate) fn plain(&mut self, line: &str) {
        // A reader that went away is no reason to stop half-way through an installation.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
        let _ = self.out.flush();
    }

    pub(crate) fn aside(&mut self, line: &str) {
        self.raw(&visible(line));
    }

    fn raw(&mut self, line: &str) {
        let _ = self.err.write_all(format!("{line}\n").as_bytes());
        let _ = self.err.flush();
    }
}

/// A text with its control characters escaped, except for those that end and indent lines.
pub(crate) fn visible(text: &str) -> String {
    escaped(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// A name that somebody else has given to a file, for a message: one line of text, whatever its bytes are.
pub(crate) fn name(name: impl AsRef<OsStr>) -> String {
    let chunks = name.as_ref().as_bytes().utf8_chunks();
    chunks
        .map(|chunk| {
            let bytes = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            escaped(chunk.valid(), is_obeyed) + &bytes.collect::<String>()
        })
        .collect()
}

/// Control characters, and those that change the direction of the text around them (UAX #9).
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, which: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if which(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The colours are those of Docker's own tool: white on bright blue or bright red.
fn level(word: &str, background: u8, colour: bool, text: &str) -> String {
    let text = visible(text);
    if colour {
        format!("\x1b[{background}m\x1b[97m[{word}]\x1b[49m\x1b[39m {text}")
    } else {
        format!("[{word}] {text}")
    }
}

#[cfg(test)]
mod tests {
    use hostenv::vars;

    use super::*;

    #[test]
    fn levels_with_and_without_colour() {
        assert_eq!(level("INFO", 104, false, "a\\nb"), "[INFO] a\\nb");
        assert_eq!(level("ERROR", 101, true, "x"), "\x1b[101m\x1b[97m[ERROR]\x1b[49m\x1b[39m x");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        use std::os::unix::ffi::OsStrExt as _;
        assert_eq!(
            level("INFO", 104, false, "a\x1b[2J\u{9b}b\tc"),
            "[INFO] a\\u{1b}[2J\\u{9b}b\tc"
        );
        assert_eq!(name("a\n[INFO] b\u{202e}"), "a\\n[INFO] b\\u{202e}");
        assert_eq!(name(OsStr::from_bytes(b"a\xff\xc3\xa9\xc3")), "a\\xffé\\xc3");
        assert_eq!(name("CORP\\Jo Doe"), "CORP\\Jo Doe");
    }

    #[test]
    fn no_colour_without_a_terminal() {
        // Streams of tests may be terminals, hence the variable.
        let ui = Ui::new(&[(vars::NO_COLOR, "1")].into_iter().collect());
        assert!(!ui.colour_out && !ui.colour_err);
        let ui = Ui::new(&[(vars::TERM, "dumb")].into_iter().collect());
        assert!(!ui.colour_out && !ui.colour_err);
    }
}
