//! What the replays have in common: requests to the API as Go clients send them, start and stop.

use serde_json::Value;
use tests::{Cmd, Context as _, PATIENCE, Result, Running, TestBox, ensure, wait};

/// An API socket on the host, used by the user.
#[derive(Clone, Copy)]
pub(crate) struct Api<'b> {
    pub(crate) b: &'b TestBox,
    /// The state directory.
    pub(crate) dir: &'b str,
}

impl Api<'_> {
    /// Status and JSON body (null if there is none) of a request.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let script = r#"test -S "$1/api.sock" || exit 3
            exec curl -sS -m20 -w '\n%{http_code}' --unix-socket "$1/api.sock" -X "$2" ${4:+-H Content-Type:application/json -d "$4"} "http://rootlesskit$3""#;
        let argv = ["sh", "-c", script, "sh", self.dir, method, path, body];
        let out = self.b.argv(tests::As::User, &argv).ok()?;
        let (body, status) = out.rsplit_once('\n').context("curl's last line")?;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_str(body)? };
        Ok((status.parse()?, value))
    }

    /// What a request gives that must succeed with this status.
    pub(crate) fn expect(
        &self,
        status: u16,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Value> {
        let (got, value) = self.ask(method, path, body)?;
        ensure!(got == status, "{method} {path} {body}: {got} {value}");
        Ok(value)
    }

    pub(crate) fn info(&self) -> Result<Value> {
        self.expect(200, "GET", "/v1/info", "")
    }

    /// Publishes a port and gives its number.
    pub(crate) fn add(&self, spec: &Value) -> Result<i64> {
        let status = self.expect(201, "POST", "/v1/ports", &spec.to_string())?;
        ensure!(status["spec"] == *spec, "{spec} came back as {status}");
        status["id"].as_i64().context("no id")
    }

    /// The published ports.
    pub(crate) fn list(&self) -> Result<Vec<Value>> {
        let list = self.expect(200, "GET", "/v1/ports", "")?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn remove(&self, id: i64) -> Result<()> {
        self.expect(200, "DELETE", &format!("/v1/ports/{id}"), "").map(drop)
    }

    /// The message of a request to publish that must be refused.
    pub(crate) fn refused(&self, spec: &Value) -> Result<String> {
        let answer = self.expect(400, "POST", "/v1/ports", &spec.to_string())?;
        Ok(answer["message"].as_str().context("no message")?.to_owned())
    }
}

/// A rootlesskit, or something that becomes one, until its target has said `ready`.
pub(crate) fn ready<'b>(command: Cmd<'b>) -> Result<Running<'b>> {
    let mut kit = command.spawn()?;
    wait::until_true("the target is ready", PATIENCE, || {
        ensure!(kit.alive()?, "it ended: {}", kit.printed()?);
        Ok(kit.printed()?.lines().any(|line| line == "ready"))
    })?;
    Ok(kit)
}

/// Ends it as a service manager does.
pub(crate) fn stop(kit: Running<'_>) -> Result<()> {
    kit.signal("TERM")?;
    kit.wait(PATIENCE).map(drop)
}

/// A command of the user in a cgroup of the user's own, as in a session of systemd.
pub(crate) fn delegated<'b>(b: &'b TestBox, script: &str) -> Cmd<'b> {
    let line = r#"set -e; g=/sys/fs/cgroup/delegated; [ -e $g ] || { mkdir $g; chown -R 1001:1001 $g; }
        echo $$ >$g/cgroup.procs
        exec setpriv --reuid=1001 --regid=1001 --init-groups env HOME=/home/tester USER=tester \
            XDG_RUNTIME_DIR=/run/user/1001 sh -c "$USER_SCRIPT""#;
    b.root(line).dir("/home/tester").env("USER_SCRIPT", script)
}
