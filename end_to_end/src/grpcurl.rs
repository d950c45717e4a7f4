//! grpcurl, as an operator runs it: by reflection alone, without the contract's files.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tonic::Code;

use crate::tools;

/// grpcurl adds the RPC's code to this.
const FIRST_CODE: i32 = 64;

/// How an RPC ended.
#[derive(Debug)]
pub struct Answer {
    /// Its code.
    pub code: Code,
    /// The answer's JSON, or what was said of the error.
    pub text: String,
}

/// grpcurl against one port.
#[derive(Debug)]
pub struct Grpcurl(String);

impl Grpcurl {
    /// Asks the server at this `HOST:PORT`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self(address.into())
    }

    /// `grpcurl list`: the names of all services.
    ///
    /// # Errors
    /// When grpcurl fails; its words are the message.
    pub async fn list(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.told(&["list"]).await?.lines().map(str::to_owned).collect())
    }

    /// `grpcurl describe` of a service, method or message.
    ///
    /// # Errors
    /// When grpcurl fails; its words are the message.
    pub async fn describe(&self, symbol: &str) -> anyhow::Result<String> {
        self.told(&["describe", symbol]).await
    }

    /// Calls a method, such as `grpc.health.v1.Health/Check`, with one message.
    ///
    /// # Errors
    /// When grpcurl does not get as far as the call, such as for a field that the message does not have.
    pub async fn call(&self, method: &str, json: &str) -> anyhow::Result<Answer> {
        answer(method, &self.command(&["-max-time", "30", "-d", json], &[method])?.output().await?)
    }

    /// Calls a method that answers with a stream, and hangs up after its first message.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn first_message(&self, method: &str, json: &str) -> anyhow::Result<Answer> {
        let mut grpcurl = self.command(&["-max-time", "30", "-d", json], &[method])?;
        let mut running = grpcurl.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(running.stdout.take().context("no standard output")?).lines();
        let mut text = String::new();
        while let Some(line) = lines.next_line().await? {
            text.push_str(&line);
            if line == "}" {
                return Ok(Answer { code: Code::Ok, text });
            }
        }
        answer(method, &running.wait_with_output().await?)
    }

    fn command(&self, flags: &[&str], what: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::from(tools::python_program("grpcurl")?);
        command.arg("-plaintext").args(flags).arg(&self.0).args(what).stdin(Stdio::null());
        Ok(command)
    }

    async fn told(&self, what: &[&str]) -> anyhow::Result<String> {
        let output = self.command(&[], what)?.output().await?;
        ensure!(output.status.success(), "grpcurl {what:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn answer(method: &str, output: &Output) -> anyhow::Result<Answer> {
    let said = String::from_utf8_lossy(&output.stderr);
    let (code, text) = match output.status.code() {
        Some(0) => (Code::Ok, String::from_utf8_lossy(&output.stdout)),
        Some(exit) if exit > FIRST_CODE => (Code::from_i32(exit - FIRST_CODE), said),
        _ => bail!("grpcurl does not call {method}: {} {said}", output.status),
    };
    Ok(Answer { code, text: text.into_owned() })
}
