//! The signals that end a process.

/// Which signal told the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: an orchestrator, whose balancer still sends requests.
    Terminate,
    /// SIGINT: a person at a terminal.
    Interrupt,
}

/// Returns when the process is told to end.
///
/// # Errors
/// If the operating system refuses a handler.
pub async fn signal() -> anyhow::Result<Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
    })
}
