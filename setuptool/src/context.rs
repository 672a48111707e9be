//! The context `rootless` of the docker CLI.
//!
//! Each call names the context `default`, since the CLI refuses everything while the current one is broken.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use env::Env;

use crate::place::World;
use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::vars;

/// The name of the context.
pub(crate) const NAME: &str = "rootless";
/// The CLI only edits files here.
const LIMIT: Duration = Duration::from_secs(60);

/// The docker CLI.
#[derive(Debug)]
pub(crate) struct Cli {
    docker: PathBuf,
    env: Env,
}

impl Cli {
    /// The one at this path.
    pub(crate) fn new(docker: PathBuf, env: Env) -> Self {
        Self { docker, env }
    }

    /// Makes sure that the context is there, means this daemon, and is the current one.
    ///
    /// # Errors
    /// The CLI refuses; its message has been shown.
    pub(crate) fn adopt(&self, ui: &mut Ui, host: &str) -> Result<(), Failed> {
        let endpoint = format!("host={host}");
        match self.host()? {
            Some(known) if known == host => {
                ui.info(&format!("CLI context \"{NAME}\" already exists"));
            }
            Some(known) => {
                ui.info(&format!("Updating CLI context \"{NAME}\" (was {known})"));
                self.context(&["update", NAME, "--docker", &endpoint])?;
            }
            None => {
                ui.info(&format!("Creating CLI context \"{NAME}\""));
                let description = ["--description", "Rootless mode"];
                self.context(
                    &[&["create", NAME, "--docker", &endpoint][..], &description].concat(),
                )?;
            }
        }
        ui.info(&format!("Using CLI context \"{NAME}\""));
        self.context(&["use", NAME])
    }

    /// Removes the context, and makes `default` the current one if this was it.
    ///
    /// # Errors
    /// The CLI refuses; its message has been shown.
    pub(crate) fn abandon(mut self, ui: &mut Ui, world: &World) -> Result<(), Failed> {
        let current = current(world);
        if self.host()?.is_some() {
            self.context(&["rm", "-f", NAME])?;
            ui.info(&format!("Deleted CLI context \"{NAME}\""));
        }
        // A third context is the user's own choice.
        if current.as_deref() == Some(NAME) {
            self.env.remove(vars::DOCKER_HOST);
            self.env.remove(vars::DOCKER_CONTEXT);
            self.context(&["use", "default"])?;
            ui.info("Configured CLI to use the \"default\" context.");
        }
        Ok(())
    }

    /// The host of the context; `None` if there is no such context.
    fn host(&self) -> Result<Option<String>, Failed> {
        let args = ["context", "inspect", "-f", "{{.Endpoints.docker.Host}}", NAME];
        let output = run::captured(&self.docker, &with_default(&args), &self.env, LIMIT)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(text))
    }

    fn context(&self, args: &[&str]) -> Result<(), Failed> {
        let args = [&["context"], args].concat();
        let status = run::shown(&self.docker, &with_default(&args), &self.env, false, LIMIT)?;
        if status.success() {
            return Ok(());
        }
        let mut failed = Failed::new(format!("`docker {}` failed with {status}", args.join(" ")));
        failed.code = run::code_of(status);
        Err(failed)
    }
}

fn with_default<'a>(args: &[&'a str]) -> Vec<&'a OsStr> {
    [&["--context=default"], args].concat().into_iter().map(OsStr::new).collect()
}

/// `currentContext` of the CLI's config.json.
fn current(world: &World) -> Option<String> {
    let text = std::fs::read(world.cli_config()?.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config.get("currentContext")?.as_str().map(str::to_owned)
}
