//! What every run folder holds: the plan that it was started with, and a lock. And what a start leaves when it fails.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Mutex,
};

use rustix::process::Signal;
use serde::{Serialize, de::DeserializeOwned};

use crate::{TestbedError, process::Process};

pub(crate) const PLAN: &str = "plan.json";
pub(crate) const LOCK: &str = "lock";

/// Processes that are killed unless they are kept: those of a start that failed or was given up.
#[derive(Debug, Default)]
pub(crate) struct Begun(Mutex<Vec<Process>>);

impl Begun {
    pub(crate) fn add(&self, process: Process) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(process);
    }

    pub(crate) fn keep(&self) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for process in self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner) {
            process.signal(Signal::KILL);
        }
    }
}

/// What keeps other commands out of a folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it is not enough: a program that another thread is starting has a copy of it until it has begun.
        let _ = self.0.unlock();
    }
}

/// Keeps other commands out of a folder.
pub(crate) fn lock(folder: &Path) -> Result<Lock, TestbedError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(TestbedError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(TestbedError::Busy(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(TestbedError::file(&path)(error)),
    }
}

/// The plan of a folder, if it holds one.
pub(crate) fn read<P: DeserializeOwned>(folder: &Path) -> Result<Option<P>, TestbedError> {
    let path = folder.join(PLAN);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(TestbedError::file(&path))?,
    };
    serde_json::from_str(&text).map(Some).map_err(|error| TestbedError::file(&path)(error.into()))
}

pub(crate) fn write(plan: &impl Serialize, folder: &Path) -> Result<(), TestbedError> {
    let path = folder.join(PLAN);
    let text = serde_json::to_string_pretty(plan).map_err(|error| TestbedError::file(&path)(error.into()))?;
    fs::write(&path, text + "\n").map_err(TestbedError::file(&path))
}
