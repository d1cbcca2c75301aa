//! One node: `carillon serve` as a process that can be killed, frozen and started again.

use reqwest::Method;

use crate::support::crash::process::Client;
use crate::support::{Program, eventually};

/// A node, running or not.
pub struct Node {
    /// Also its user of the database.
    pub name: &'static str,
    url: String,
    settings: Vec<(String, String)>,
    program: Option<Program>,
}

impl Node {
    /// Starts a node; `settings` are keys of the configuration as environment variables have them.
    pub async fn start(name: &'static str, url: &str, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("CARILLON_LOG".to_owned(), "info".to_owned())];
        all.extend(settings.iter().map(|(key, value)| (format!("CARILLON_{key}"), (*value).to_owned())));
        let mut node = Self { name, url: url.to_owned(), settings: all, program: None };
        node.restart().await;
        node
    }

    /// Starts it again. Returns when it serves.
    pub async fn restart(&mut self) {
        assert!(self.program.is_none(), "it runs");
        let settings: Vec<_> = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let arguments = ["--no-auth", "--egress-allow", "127.0.0.0/8", "--store", &self.url];
        self.program = Some(Program::serve(&arguments, &settings).await);
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    /// Where its API is.
    pub fn base(&self) -> String {
        self.program().base.clone()
    }

    pub fn client(&self) -> Client {
        Client::to(self.base())
    }

    /// What it logged since it was started.
    pub fn log(&self) -> String {
        self.program().log()
    }

    /// SIGKILL: it has no time for anything.
    pub async fn kill(&mut self) {
        self.program.take().expect("it runs").kill().await;
    }

    /// SIGSTOP: it stands still, and nobody is told.
    pub async fn freeze(&self) {
        self.program().signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn thaw(&self) {
        self.program().signal("CONT").await;
    }

    /// SIGTERM: it finishes what runs.
    pub async fn drain(&mut self) {
        let mut program = self.program.take().expect("it runs");
        program.terminate().await;
        assert_eq!(program.ended().await, Some(0), "{}", program.log());
    }

    /// Whether `/readyz` says so; none if there is no answer.
    pub async fn readiness(&self) -> Option<u16> {
        let answer = self.client().try_send(Method::GET, "/readyz", Vec::new()).await;
        answer.ok().map(|(status, _)| status.as_u16())
    }

    pub async fn until_ready(&self) {
        let what = format!("{} is ready", self.name);
        eventually(&what, async || self.readiness().await, |status| *status == Some(200)).await;
    }
}
