//! Diagnostics on standard error in the shape of RootlessKit's (logrus): `time=… level=… msg="…"`, or the
//! short coloured form on a terminal. The role stands in front of every message.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::time::{Instant, SystemTime};

use hostenv::Env;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

struct Logrus {
    role: &'static str,
    terminal: bool,
    start: Instant,
}

/// The message and, behind it, `name=value` for each further field.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let ok = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        debug_assert!(ok.is_ok(), "writing to a String cannot fail");
    }
}

impl<S, N> FormatEvent<S, N> for Logrus
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let (level, short, colour) = match *event.metadata().level() {
            Level::ERROR => ("error", "ERRO", 31),
            Level::WARN => ("warning", "WARN", 33),
            Level::INFO => ("info", "INFO", 36),
            _ => ("debug", "DEBU", 37),
        };
        let message = format!("[rootlesskit:{}] {}{}", self.role, text.message, text.fields);
        if self.terminal {
            let seconds = self.start.elapsed().as_secs();
            return writeln!(out, "\x1b[{colour}m{short}\x1b[0m[{seconds:04}] {message}");
        }
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        writeln!(out, "time=\"{time}\" level={level} msg={message:?}")
    }
}

/// Starts logging for this process. Whoever wants no colours gets no terminal form.
pub(crate) fn init(role: &'static str, debug: bool) {
    let terminal = std::io::stderr().is_terminal() && hostenv::colour::is_wanted(&Env::current());
    let format = Logrus { role, terminal, start: Instant::now() };
    let level = if debug { Level::DEBUG } else { Level::INFO };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        // Its way to report a failed write is eprintln!, which panics when stderr is a closed pipe.
        .log_internal_errors(false)
        .event_format(format)
        .init();
}
