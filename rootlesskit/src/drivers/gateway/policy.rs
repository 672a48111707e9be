//! The egress policy: what the files and Docker say now is what the gateway enforces.
//!
//! A file that cannot be read, or is no policy, ends the start. Later, what was read from it before stays in force, and the
//! next change of the file is another chance. If the gateway refuses a policy, it is offered again some time later: a gateway
//! process that does not work any more has a successor by then, which may accept it. The API shows as in force what the
//! gateway has accepted. Containers that Docker does not list are nobody that a rule allows something: see the crate `egress`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use api::policy::{PolicyFile, PolicyGateway, PolicyRule, PolicyStatus};
use egress::{Directory, File, Policies};
use nix::errno::Errno;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Handle;
use crate::docker::Socket;
use crate::docker::follow::{self, Listing};
use crate::path_watch::{PathWatch, Unwatched};
use crate::policy_file;

/// Time from an event in the directories of the files to the look at them, which counts for all events until then: editors
/// and scripts cause several with one change.
const LOOK_DELAY: Duration = Duration::from_millis(100);
/// How long the first rules that name containers wait for Docker. Without an answer, they know nobody, which ends
/// connections that they allow.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// After a refusal, how long until the policy is offered again: a gateway process that does not work any more has a
/// successor by then.
const RETRY_DELAY: Duration = Duration::from_secs(15);

/// What applies instead of a policy that the gateway does not accept.
const REFUSED: &str = "the gateway keeps the previous policy, in which containers that have started since are not listed";

/// What is in force, for the API.
pub(super) type Status = Rc<RefCell<PolicyStatus>>;

/// A file that a flag names.
#[derive(Debug, Clone)]
pub(super) struct Source {
    path: PathBuf,
    /// What was read from it last, or why it could not be read.
    content: Result<Vec<u8>, String>,
    /// What was read from it last that is a policy.
    file: File,
    /// Why the current version of the file is not in force.
    error: Option<String>,
    /// Why changes are not noticed.
    unwatched: Option<Unwatched>,
}

/// Reads the files that the flags name, all of which have to be there.
pub(super) fn read(paths: &[String]) -> anyhow::Result<Vec<Source>> {
    let read = |path: &String| {
        let path = std::path::absolute(path)
            .with_context(|| format!("invalid --egress-policy={path:?}"))?;
        let content = policy_file::bytes(&path)?;
        let file = policy_file::parse(&path, content.clone())?;
        Ok(Source { path, content: Ok(content), file, error: None, unwatched: None })
    };
    paths.iter().map(read).collect()
}

impl Source {
    /// Reads the file. Says whether it is not as it was.
    fn look(&mut self) -> bool {
        let content = policy_file::bytes(&self.path).map_err(|e| format!("{e:#}"));
        if content == self.content {
            return false;
        }
        self.content = content.clone();
        let parse = |bytes| policy_file::parse(&self.path, bytes).map_err(|e| format!("{e:#}"));
        match content.and_then(parse) {
            Ok(file) => {
                if file != self.file || self.error.is_some() {
                    tracing::info!("egress policy {}: reloaded", self.path.display());
                }
                (self.file, self.error) = (file, None);
            }
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!("{error}\nthe last valid version of the file stays in force");
                }
                self.error = Some(error);
            }
        }
        true
    }
}

/// Keeps the gateway informed.
#[derive(Debug)]
pub(super) struct Follower<E> {
    sources: Vec<Source>,
    watch: PathWatch,
    /// Docker's socket.
    docker: Socket,
    /// Docker's containers, while a file names some.
    told: Option<watch::Receiver<Listing>>,
    /// [`LOOK_DELAY`]
    look_delay: Duration,
    /// [`ANSWER_TIME`]
    answer_time: Duration,
    /// [`RETRY_DELAY`]
    retry_delay: Duration,
    /// When the gateway is asked again, after a refusal.
    retry_at: Option<Instant>,
    listing: Listing,
    enforced: Policies,
    gateway: E,
    status: Status,
}

/// Waits until then, or for ever.
async fn time(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the gateway has accepted a policy. Nobody says so if it ends before; its successor then has the policy from the
/// start.
type Accepted = oneshot::Receiver<anyhow::Result<()>>;

/// Whoever judges attempts.
pub(super) trait Enforce {
    /// Takes the place of what was in force before. If that fails, now or later, what was in force stays. After it has
    /// failed later, a successor would take it nevertheless until there is another one.
    fn enforce(&mut self, policies: &Policies) -> anyhow::Result<Accepted>;

    /// What it decides by itself.
    fn describe(&self) -> PolicyGateway;
}

impl Enforce for Handle {
    fn enforce(&mut self, policies: &Policies) -> anyhow::Result<Accepted> {
        let (reply, accepted) = oneshot::channel();
        // It does not matter if nobody waits for it any more.
        self.lock().set_policy(policies.clone(), move |result| drop(reply.send(result)))?;
        Ok(accepted)
    }

    fn describe(&self) -> PolicyGateway {
        self.lock().plan().describe()
    }
}

impl<E: Enforce> Follower<E> {
    /// Enforces what the files say; Docker is not asked yet. Its socket is beside the state directory.
    pub(super) fn new(sources: Vec<Source>, state_dir: &Path, gateway: E) -> anyhow::Result<Self> {
        let paths = sources.iter().map(|source| source.path.clone()).collect();
        let mut follower = Self {
            watch: PathWatch::new(Path::new("/"), paths)?,
            sources,
            docker: Socket::beside(state_dir),
            told: None,
            look_delay: LOOK_DELAY,
            answer_time: ANSWER_TIME,
            retry_delay: RETRY_DELAY,
            retry_at: None,
            listing: Listing::default(),
            enforced: Policies::default(),
            gateway,
            status: Status::default(),
        };
        // The files may be others by now.
        follower.look();
        let policies = follower.policies();
        // There is no gateway process yet. The first one does not start without the policy.
        drop(follower.gateway.enforce(&policies).context("cannot enforce the egress policy")?);
        follower.tell(Ok(policies));
        Ok(follower)
    }

    pub(super) fn status(&self) -> Status {
        Rc::clone(&self.status)
    }

    /// Enforces what changes. It ends with an error if changes cannot be noticed any more.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        let readable = sys::readable::register(self.watch.fd().try_clone_to_owned()?)?;
        self.ask_docker();
        let mut look_at = None;
        loop {
            tokio::select! {
                ready = readable.readable(), if look_at.is_none() => {
                    ready?.clear_ready();
                    look_at = Some(Instant::now() + self.look_delay);
                    continue;
                }
                () = time(self.retry_at) => {}
                () = time(look_at) => {
                    look_at = None;
                    let changed = self.look();
                    // Again, if it could not be done before.
                    let asked = self.ask_docker();
                    if asked {
                        self.first_answer().await;
                    }
                    if !(changed || asked) {
                        continue;
                    }
                }
                listing = news(&mut self.told) => self.listing = listing,
            }
            self.apply().await;
        }
    }

    /// Reads the files. Says whether one of them is not as it was.
    fn look(&mut self) -> bool {
        // Where they are does not matter: they are read through the path that the flag names.
        self.watch.look();
        for warning in self.unwatched() {
            tracing::warn!("{warning}");
        }
        let mut changed = false;
        for source in &mut self.sources {
            changed |= source.look();
        }
        changed
    }

    /// What has to be said about files whose changes are not noticed, once.
    fn unwatched(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (source, now) in self.sources.iter_mut().zip(self.watch.blind()) {
            if source.unwatched == *now {
                continue;
            }
            source.unwatched.clone_from(now);
            if let Some((what, error)) = now {
                let (file, what) = (source.path.display(), what.display());
                let hint = match error {
                    Errno::ENOSPC => {
                        "raise the sysctl fs.inotify.max_user_watches, then ".to_owned()
                    }
                    Errno::EACCES => format!("let the user of the daemon read {what}, then "),
                    _ => "after a change, ".to_owned(),
                };
                warnings.push(format!(
                    "changes to {file} will not be detected: cannot watch {what}: {error}\nhint: {hint}restart the daemon"
                ));
            }
        }
        warnings
    }

    /// Follows Docker if a file has rules for senders, or if a name that a container asks for over IPv4 may lead it to an
    /// IPv6 address. Otherwise Docker does not matter. Says whether this has begun now.
    fn ask_docker(&mut self) -> bool {
        let both = self.gateway.describe().networks.len() > 1;
        let needs = |file: &File| file.has_senders() || (both && file.uses_names());
        let needed = self.sources.iter().any(|source| needs(&source.file));
        match (needed, self.told.is_some()) {
            (true, false) => match follow::follow(self.docker.clone()) {
                Ok(told) => {
                    self.told = Some(told);
                    return true;
                }
                Err(e) => {
                    self.listing =
                        unknown(format!("cannot start the thread that asks Docker: {e}"));
                }
            },
            (false, true) => {
                self.told = None;
                self.listing = Listing::default();
            }
            (true, true) | (false, false) => {}
        }
        false
    }

    /// Waits for what Docker answers first, but not for long.
    async fn first_answer(&mut self) {
        let Some(told) = &mut self.told else { return };
        let answered = told.wait_for(|listing| listing.answered);
        // Without an answer, or if the thread has ended, there are news later.
        if let Ok(Ok(listing)) = tokio::time::timeout(self.answer_time, answered).await {
            self.listing.clone_from(&listing);
        }
    }

    /// What the files and Docker say now.
    fn policies(&self) -> Policies {
        let directory = &self.listing.directory;
        let resolve =
            |source: &Source| source.file.resolve(&source.path.to_string_lossy(), directory);
        Policies {
            policies: self.sources.iter().map(resolve).collect(),
            known: directory.known(),
            has_docker_ipv4: directory.has_networks(true),
            has_docker_ipv6: directory.has_networks(false),
        }
    }

    /// Enforces what the files and Docker say now, if that is not what is enforced.
    async fn apply(&mut self) {
        self.retry_at = None;
        let policies = self.policies();
        let accepted =
            if policies == self.enforced { Ok(()) } else { self.enforce(&policies).await };
        let failed = accepted.map_err(|e| format!("{REFUSED}: {e:#}"));
        if let Err(why) = &failed {
            tracing::warn!("the egress policy was not changed: {why}");
        }
        self.tell(failed.map(|()| policies));
    }

    /// Waits until the gateway has accepted this. If it does not, it gets back what it had, which its successor gets, too.
    async fn enforce(&mut self, policies: &Policies) -> anyhow::Result<()> {
        let accepted = self.gateway.enforce(policies)?;
        let Err(refused) = accepted.await.unwrap_or(Ok(())) else { return Ok(()) };
        self.retry_at = Some(Instant::now() + self.retry_delay);
        if let Ok(accepted) = self.gateway.enforce(&self.enforced)
            && let Ok(Err(e)) = accepted.await
        {
            tracing::warn!("the egress policy in force was refused, too: {e:#}");
        }
        Err(refused)
    }

    /// Says what is in force: this, or what was in force before, and why.
    fn tell(&mut self, accepted: Result<Policies, String>) {
        let failed = match accepted {
            Ok(policies) => {
                self.enforced = policies;
                // Even if it is the same: a file may name other containers that are not there.
                let gateway = self.gateway.describe();
                self.status.replace(status(&self.enforced, &self.sources, gateway));
                None
            }
            Err(why) => Some(why),
        };
        let mut status = self.status.borrow_mut();
        for (file, source) in status.files.iter_mut().zip(&self.sources) {
            file.error = source.error.clone().or_else(|| failed.clone());
        }
        let matters = self.sources.iter().any(|source| source.file.names_containers());
        status.docker_error = self.listing.error.clone().filter(|_| matters);
    }
}

/// The next listing. Without Docker, never.
async fn news(told: &mut Option<watch::Receiver<Listing>>) -> Listing {
    let Some(receiver) = told else { return std::future::pending().await };
    if receiver.changed().await.is_ok() {
        return receiver.borrow_and_update().clone();
    }
    *told = None;
    unknown("the thread that asks Docker has ended".to_owned())
}

/// Docker cannot be asked.
fn unknown(error: String) -> Listing {
    Listing { directory: Directory::default(), error: Some(error), answered: true }
}

/// What is in force. How often rules matched is the gateway's to say.
fn status(policies: &Policies, sources: &[Source], gateway: PolicyGateway) -> PolicyStatus {
    let file = |(policy, source): (&egress::Policy, &Source)| PolicyFile {
        file: policy.file.clone(),
        error: None,
        mode: policy.mode,
        default: policy.default,
        rules: policy
            .rules
            .iter()
            .zip(source.file.senders())
            .map(|(rule, senders)| PolicyRule { rule: rule.clone(), senders, matched: 0 })
            .collect(),
        default_matched: 0,
    };
    PolicyStatus {
        files: policies.policies.iter().zip(sources).map(file).collect(),
        known: policies.known.keys().copied().collect(),
        docker_error: None,
        gateway: Some(gateway),
    }
}

#[cfg(test)]
mod tests;
