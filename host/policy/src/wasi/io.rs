//! `wasi:io` and the three standard streams: output becomes log lines, input is empty, and no call ever blocks.
//!
//! Handles stand for objects that always exist, so none has an entry in a table. The number of handles of a call is bounded nevertheless,
//! because the guest's own list of them is memory of the host.

use wasmtime::component::{ComponentType, Lower, Resource};

use super::state::StandardStream;
use super::{Context, Instance, resource};
use crate::state::CallState;

struct Error;
struct InputStream;
struct OutputStream;
pub(super) struct Pollable;

/// Numbers of the handles. An output stream's number is that of its lines.
const ANY: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Bytes that a stream accepts at once.
const WRITABLE: u64 = 64 << 10;

/// Error of a stream, of which only the second case is used.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "a part of the type")]
    LastOperationFailed(Resource<Error>),
    #[component(name = "closed")]
    Closed,
}

type Streamed<T> = Result<T, StreamError>;

pub(super) fn resources(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    resource::<Error>(it, "error")?;
    resource::<Pollable>(it, "pollable")?;
    resource::<InputStream>(it, "input-stream")?;
    resource::<OutputStream>(it, "output-stream")
}

pub(super) fn add_to_linker(it: &mut Instance<'_>, interface: &str) -> wasmtime::Result<()> {
    match interface {
        "wasi:io/poll" => poll(it),
        "wasi:io/streams" => input(it).and_then(|()| output(it)),
        "wasi:cli/stdin" => it.func_wrap("get-stdin", |store: Context<'_>, (): ()| handle::<InputStream>(store, ANY)),
        "wasi:cli/stdout" => {
            it.func_wrap("get-stdout", |store: Context<'_>, (): ()| handle::<OutputStream>(store, STDOUT))
        }
        "wasi:cli/stderr" => {
            it.func_wrap("get-stderr", |store: Context<'_>, (): ()| handle::<OutputStream>(store, STDERR))
        }
        _ => Ok(()),
    }
}

/// Returns a pollable that is ready at once.
pub(super) fn pollable(store: Context<'_>) -> wasmtime::Result<(Resource<Pollable>,)> {
    handle(store, ANY)
}

fn handle<T: 'static>(mut store: Context<'_>, number: u32) -> wasmtime::Result<(Resource<T>,)> {
    store.data_mut().wasi.take_handle()?;
    Ok((Resource::new_own(number),))
}

fn poll(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    it.func_wrap("[method]pollable.ready", |_: Context<'_>, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    it.func_wrap("[method]pollable.block", |_: Context<'_>, (_,): (Resource<Pollable>,)| Ok(()))?;
    it.func_wrap("poll", |_: Context<'_>, (all,): (Vec<Resource<Pollable>>,)| {
        Ok(((0..u32::try_from(all.len())?).collect::<Vec<u32>>(),))
    })
}

fn input(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    type Stream = Resource<InputStream>;
    for name in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        it.func_wrap(name, |_: Context<'_>, (_, _): (Stream, u64)| {
            Ok((Streamed::<Vec<u8>>::Err(StreamError::Closed),))
        })?;
    }
    for name in ["[method]input-stream.skip", "[method]input-stream.blocking-skip"] {
        it.func_wrap(name, |_: Context<'_>, (_, _): (Stream, u64)| Ok((Streamed::<u64>::Err(StreamError::Closed),)))?;
    }
    it.func_wrap("[method]input-stream.subscribe", |store: Context<'_>, (_,): (Stream,)| pollable(store))
}

fn output(it: &mut Instance<'_>) -> wasmtime::Result<()> {
    type Stream = Resource<OutputStream>;
    it.func_wrap("[method]output-stream.check-write", |_: Context<'_>, (_,): (Stream,)| Ok((Streamed::Ok(WRITABLE),)))?;
    for name in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        it.func_wrap(name, |mut store: Context<'_>, (stream, bytes): (Stream, Vec<u8>)| {
            let CallState { wasi, log, .. } = store.data_mut();
            let stream = if stream.rep() == STDERR { StandardStream::Error } else { StandardStream::Output };
            wasi.print(log, stream, &bytes);
            Ok((Streamed::Ok(()),))
        })?;
    }
    for name in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        it.func_wrap(name, |_: Context<'_>, (_,): (Stream,)| Ok((Streamed::Ok(()),)))?;
    }
    it.func_wrap("[method]output-stream.subscribe", |store: Context<'_>, (_,): (Stream,)| pollable(store))
}
