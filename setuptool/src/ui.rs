//! What the user reads: `[INFO]` lines on standard output, `[WARNING]` and `[ERROR]` lines on standard error, and
//! the commands that are run, as the shell's `+ command` lines, on standard error.
//!
//! The levels are coloured on a terminal only, and not when `NO_COLOR` is set (<https://no-color.org>) or the
//! terminal is dumb. Text is printed as it is: nothing interprets backslashes, which names of domain users have.

use std::io::{self, IsTerminal as _, Write};

use env::Env;

/// Writes to both streams, in the order of the calls even if they end in one file.
pub(crate) struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    colour_out: bool,
    colour_err: bool,
}

impl Ui {
    /// The streams of this process.
    pub(crate) fn new(env: &Env) -> Self {
        let wanted = env::colour::is_wanted(env);
        Self {
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// No stream at all.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        let nowhere = || Box::new(io::sink());
        Self { out: nowhere(), err: nowhere(), colour_out: false, colour_err: false }
    }

    /// Tells what happens.
    pub(crate) fn info(&mut self, text: &str) {
        let line = level("INFO", 104, self.colour_out, text);
        self.plain(&line);
    }

    /// Tells what may surprise.
    pub(crate) fn warning(&mut self, text: &str) {
        let line = level("WARNING", 101, self.colour_err, text);
        self.aside(&line);
    }

    /// Tells why it does not work.
    pub(crate) fn error(&mut self, text: &str) {
        let line = level("ERROR", 101, self.colour_err, text);
        self.aside(&line);
    }

    /// A command that is about to be run, like the shell's `set -x`.
    pub(crate) fn trace(&mut self, command: &str) {
        self.aside(&format!("+ {command}"));
    }

    /// A line of standard output without a level.
    pub(crate) fn plain(&mut self, line: &str) {
        // A reader that went away is no reason to stop half-way through an installation.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
        let _ = self.out.flush();
    }

    /// A line of standard error without a level.
    pub(crate) fn aside(&mut self, line: &str) {
        let _ = self.err.write_all(format!("{line}\n").as_bytes());
        let _ = self.err.flush();
    }
}

/// The colours are those of Docker's own tool: white on bright blue or bright red.
fn level(word: &str, background: u8, colour: bool, text: &str) -> String {
    if colour {
        format!("\x1b[{background}m\x1b[97m[{word}]\x1b[49m\x1b[39m {text}")
    } else {
        format!("[{word}] {text}")
    }
}

#[cfg(test)]
mod tests {
    use env::vars;

    use super::*;

    #[test]
    fn f101_levels_with_and_without_colour() {
        assert_eq!(level("INFO", 104, false, "a\\nb"), "[INFO] a\\nb");
        assert_eq!(level("ERROR", 101, true, "x"), "\x1b[101m\x1b[97m[ERROR]\x1b[49m\x1b[39m x");
    }

    #[test]
    fn f101_no_colour_without_a_terminal() {
        // Streams of tests may be terminals, hence the variable.
        let ui = Ui::new(&[(vars::NO_COLOR, "1")].into_iter().collect());
        assert!(!ui.colour_out && !ui.colour_err);
        let ui = Ui::new(&[(vars::TERM, "dumb")].into_iter().collect());
        assert!(!ui.colour_out && !ui.colour_err);
    }
}
