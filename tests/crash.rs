//! The real program as a process of its own: killed, stopped, and fed with hostile policies.

mod hostile;
mod killed;
mod stopped;
