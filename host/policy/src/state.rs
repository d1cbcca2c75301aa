//! Host state that a guest sees during one call: a log, handles of keys, and, for guests that import it, WASI. No clock, no randomness, no
//! I/O.

use std::sync::Arc;

use wasmtime::component::{Resource, ResourceTable};

use super::call_log::LogLines;
use super::keys::{GrantedKey, KeyMaterial, MacAlgorithm};
use super::limits::{Limits, Meter};
use super::wasi::{Facts, Wasi};
use super::wit::jobs_import::{self, NewJob, Refusal};
use super::wit::{keys_import, log_import, types};

/// Maximum number of jobs that one call may request, and maximum total size of them in bytes, as `wit/jobs.wit` says.
const ASKED_JOBS: usize = 4;
const ASKED_LEN: usize = 256 << 10;

/// Data of the call's store.
pub(super) struct CallState {
    pub(super) meter: Meter,
    pub(super) table: ResourceTable,
    pub(super) log: LogLines,
    pub(super) wasi: Wasi,
    key_operations_left: u32,
    /// Requested jobs; `None` if the call may not request any.
    asked: Option<Vec<NewJob>>,
}

impl CallState {
    pub(super) fn new(limits: &Limits, facts: Facts) -> Self {
        Self {
            meter: Meter::new(limits),
            table: ResourceTable::new(),
            log: LogLines::new(limits),
            wasi: Wasi::new(facts),
            key_operations_left: limits.key_operations,
            asked: None,
        }
    }

    /// Allows the guest to request jobs during this call.
    pub(super) fn allow_jobs(&mut self) {
        self.asked = Some(Vec::new());
    }

    /// Takes the jobs that the guest has requested.
    pub(super) fn take_jobs(&mut self) -> Vec<NewJob> {
        self.asked.take().unwrap_or_default()
    }

    /// Returns the guest's log.
    pub(super) fn into_log(mut self) -> Vec<String> {
        self.wasi.finish(&mut self.log);
        self.log.finish()
    }

    /// Gives the guest handles of `keys` for this call.
    pub(super) fn grant(&mut self, keys: &[Arc<KeyMaterial>]) -> wasmtime::Result<Vec<Resource<GrantedKey>>> {
        keys.iter().map(|key| Ok(self.table.push(GrantedKey(Arc::clone(key)))?)).collect()
    }

    fn key(
        &mut self,
        handle: &Resource<GrantedKey>,
    ) -> wasmtime::Result<Result<Arc<KeyMaterial>, keys_import::KeyError>> {
        let Some(left) = self.key_operations_left.checked_sub(1) else {
            return Ok(Err(keys_import::KeyError::TooManyOperations));
        };
        self.key_operations_left = left;
        Ok(Ok(Arc::clone(&self.table.get(handle)?.0)))
    }
}

impl log_import::Host for CallState {
    fn write(&mut self, level: log_import::Level, message: String) -> wasmtime::Result<()> {
        self.log.write(level, &message);
        Ok(())
    }
}

impl types::Host for CallState {}

impl jobs_import::Host for CallState {
    fn create(&mut self, job: NewJob) -> wasmtime::Result<Result<(), Refusal>> {
        let Some(asked) = &mut self.asked else { return Ok(Err(Refusal::NotGranted)) };
        if asked.len() >= ASKED_JOBS {
            return Ok(Err(Refusal::TooMany));
        }
        if asked.iter().chain([&job]).map(size_of_job).sum::<usize>() > ASKED_LEN {
            return Ok(Err(Refusal::TooLarge));
        }
        asked.push(job);
        Ok(Ok(()))
    }
}

fn size_of_job(job: &NewJob) -> usize {
    let headers = job.headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
    job.name.as_ref().map_or(0, String::len) + job.method.len() + job.url.len() + headers + job.body.len()
}

impl keys_import::Host for CallState {}

impl keys_import::HostKey for CallState {
    fn id(&mut self, handle: Resource<GrantedKey>) -> wasmtime::Result<String> {
        Ok(self.table.get(&handle)?.0.id().to_owned())
    }

    fn mac(
        &mut self,
        handle: Resource<GrantedKey>,
        alg: keys_import::Mac,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, keys_import::KeyError>> {
        let algorithm = match alg {
            keys_import::Mac::HmacSha1 => MacAlgorithm::HmacSha1,
            keys_import::Mac::HmacSha256 => MacAlgorithm::HmacSha256,
            keys_import::Mac::HmacSha512 => MacAlgorithm::HmacSha512,
        };
        Ok(self.key(&handle)?.and_then(|key| key.mac(algorithm, &data).map_err(|_| keys_import::KeyError::WrongKind)))
    }

    fn sign(
        &mut self,
        handle: Resource<GrantedKey>,
        alg: keys_import::Signature,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, keys_import::KeyError>> {
        let keys_import::Signature::Ed25519 = alg;
        Ok(self.key(&handle)?.and_then(|key| key.sign(&data).map_err(|_| keys_import::KeyError::WrongKind)))
    }

    fn drop(&mut self, handle: Resource<GrantedKey>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
