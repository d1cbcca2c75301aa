//! The signals that end a process.

/// Who wants the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM: an orchestrator, whose balancer still sends requests.
    Terminate,
    /// SIGINT: a person at a terminal.
    Interrupt,
}

/// Returns when somebody wants this process to end.
pub(crate) async fn signal() -> anyhow::Result<Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
    })
}
