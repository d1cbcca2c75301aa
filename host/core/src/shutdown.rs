//! Signals that end a process.

/// Signal that told the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: from an orchestrator, whose balancer still sends requests.
    Terminate,
    /// SIGINT: from a person at a terminal.
    Interrupt,
}

/// Waits for a signal to end.
///
/// # Errors
/// Returns an error if the operating system refuses a handler.
pub async fn signal() -> anyhow::Result<Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
    })
}
