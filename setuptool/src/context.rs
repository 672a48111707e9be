//! The context `rootless` of the docker CLI.
//!
//! Each call names the context `default`, since the CLI refuses everything while the current one is broken.
//!
//! A context of that name may be the user's, for another daemon. It stays, unless `--force` is given, which keeps an
//! export of it. One that `install` (ours or Docker's) made, for a socket that is gone, is brought up to date.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostenv::Env;

use crate::run::{self, Failed};
use crate::ui::Ui;
use crate::write::free_name;
use doctor::names::CONTEXT as NAME;
use doctor::place::{World, docker_host};
use doctor::vars;

/// What `install` says of the context, and Docker's own tool too.
const DESCRIPTION: &str = "Rootless mode";
/// The CLI only edits files here.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Cli {
    docker: PathBuf,
    env: Env,
}

impl Cli {
    pub(crate) fn new(docker: PathBuf, env: Env) -> Self {
        Self { docker, env }
    }

    /// Makes sure that the context is there, means this daemon, and is the current one.
    pub(crate) fn adopt(
        &self,
        ui: &mut Ui,
        world: &World,
        host: &str,
        force: bool,
    ) -> Result<(), Failed> {
        let endpoint = format!("host={host}");
        let update = ["update", NAME, "--docker", &endpoint];
        match self.found()? {
            Some(found) if found.host == host => {
                ui.info(&format!("CLI context \"{NAME}\" already exists"));
            }
            Some(found) if found.is_made() && found.is_gone() => {
                ui.info(&format!("Updating CLI context \"{NAME}\" (was {})", found.host));
                self.context(&update)?;
            }
            Some(found) if force => {
                let config = world.cli_config().unwrap_or_default();
                let copy = free_name(&config.join(format!("{NAME}.dockercontext")), "bak");
                self.context(&["export", NAME, &copy.to_string_lossy()])?;
                self.context(&update)?;
                let copy = copy.display();
                ui.warning(&format!(
                    "Updated CLI context \"{NAME}\" (was {}); exported the old one to {copy}",
                    found.host
                ));
            }
            Some(found) => {
                ui.warning(&format!(
                    "CLI context \"{NAME}\" points to another daemon ({}) and was kept; to use this daemon, set \
                     DOCKER_HOST={host}; to replace the context, use --force",
                    found.host
                ));
                return Ok(());
            }
            None => {
                ui.info(&format!("Creating CLI context \"{NAME}\""));
                let description = ["--description", DESCRIPTION];
                self.context(
                    &[&["create", NAME, "--docker", &endpoint][..], &description].concat(),
                )?;
            }
        }
        ui.info(&format!("Using CLI context \"{NAME}\""));
        self.context(&["use", NAME])
    }

    /// Removes the context unless it is for another daemon, and makes `default` the current one if this was it.
    pub(crate) fn abandon(mut self, ui: &mut Ui, world: &World) -> Result<(), Failed> {
        let config = world.cli_json().unwrap_or_default();
        let own = world.runtime_dir().map(|dir| docker_host(&dir));
        if let Some(found) = self.found()? {
            if Some(&found.host) != own.as_ref() && !found.is_made() {
                ui.info(&format!(
                    "CLI context \"{NAME}\" points to another daemon ({}) and was kept",
                    found.host
                ));
                return Ok(());
            }
            self.context(&["rm", "-f", NAME])?;
            ui.info(&format!("Deleted CLI context \"{NAME}\""));
        }
        // A third context is the user's own choice.
        if config["currentContext"] == NAME {
            self.env.remove(hostenv::vars::DOCKER_HOST);
            self.env.remove(vars::DOCKER_CONTEXT);
            self.context(&["use", "default"])?;
            ui.info("Configured CLI to use the \"default\" context.");
        }
        Ok(())
    }

    fn found(&self) -> Result<Option<Found>, Failed> {
        let args = ["context", "inspect", NAME];
        let output = run::captured(&self.docker, &with_default(&args), &self.env, LIMIT)?;
        if !output.status.success() {
            return Ok(None);
        }
        // The description is in another place in templates of each release.
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let context = &json[0];
        Ok(Some(Found {
            host: text(&context["Endpoints"]["docker"]["Host"]),
            description: text(&context["Metadata"]["Description"]),
        }))
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    host: String,
    description: String,
}

impl Found {
    fn socket(&self) -> Option<&Path> {
        self.host.strip_prefix("unix://").map(Path::new)
    }

    /// Whether an `install` made it.
    fn is_made(&self) -> bool {
        let named = self.socket().is_some_and(|socket| socket.ends_with("docker.sock"));
        named && self.description == DESCRIPTION
    }

    /// Whether there is no such socket any more.
    fn is_gone(&self) -> bool {
        self.socket().is_some_and(|socket| !socket.exists())
    }
}

fn with_default<'a>(args: &[&'a str]) -> Vec<&'a OsStr> {
    [&["--context=default"], args].concat().into_iter().map(OsStr::new).collect()
}
