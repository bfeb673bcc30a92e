//! Modules by name.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{CallError, Failure, ModuleError};
use super::request::{Caller, Invocation, Request, Responses};
use super::wire::is_name;
use crate::lock::lock;

type Running = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;

/// What runs when a module is called.
pub(super) type Handler = Arc<dyn Fn(Invocation) -> Running + Send + Sync>;

/// The modules of an `Rpc`.
#[derive(Default)]
pub(super) struct Modules(Mutex<HashMap<Arc<str>, Handler>>);

impl Modules {
    pub(super) fn get(&self, name: &str) -> Option<Handler> {
        lock(&self.0).get(name).cloned()
    }

    pub(super) fn add(
        self: &Arc<Self>,
        name: &str,
        handler: Handler,
        limit: usize,
    ) -> Result<ModuleGuard, ModuleError> {
        if !is_name(name) {
            return Err(ModuleError::InvalidName);
        }
        let mut modules = lock(&self.0);
        if modules.contains_key(name) {
            return Err(ModuleError::InUse);
        }
        if modules.len() >= limit {
            return Err(ModuleError::TooMany { limit });
        }
        let name: Arc<str> = name.into();
        modules.insert(name.clone(), handler);
        Ok(ModuleGuard { name, modules: Arc::downgrade(self) })
    }

    /// Forgets all: what handlers hold is dropped outside of the lock.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        drop(all);
    }
}

impl fmt::Debug for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

/// Keeps a module. Dropping it unregisters the module: calls in progress go on, later ones fail.
#[must_use = "dropping it unregisters the module"]
#[derive(Debug)]
pub struct ModuleGuard {
    name: Arc<str>,
    modules: Weak<Modules>,
}

impl ModuleGuard {
    /// Keeps the module as long as there is its `Rpc`.
    pub fn detach(mut self) {
        self.modules = Weak::new();
    }

    /// The name of the module.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for ModuleGuard {
    fn drop(&mut self) {
        if let Some(modules) = self.modules.upgrade() {
            let removed = lock(&modules.0).remove(&self.name);
            drop(removed);
        }
    }
}

/// A handler of one answer.
pub(super) fn plain<F, T>(handler: F) -> Handler
where
    F: Fn(Request) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Value, Failure>> + Send + 'static,
{
    Arc::new(move |invocation| match invocation.request() {
        Ok(request) => {
            let answer = handler(request);
            Box::pin(async move { encode(&answer.await.map_err(CallError::Failed)?) })
        }
        Err(error) => malformed(&error),
    })
}

/// A handler of one answer, with types of its own.
pub(super) fn typed<F, Q, A, T>(handler: F) -> Handler
where
    F: Fn(Q, Caller) -> T + Send + Sync + 'static,
    Q: DeserializeOwned,
    A: Serialize,
    T: Future<Output = Result<A, Failure>> + Send + 'static,
{
    Arc::new(move |invocation| match serde_json::from_slice(&invocation.body) {
        Ok(request) => {
            let answer = handler(request, invocation.call.caller);
            Box::pin(async move { encode(&answer.await.map_err(CallError::Failed)?) })
        }
        Err(error) => malformed(&error),
    })
}

/// A handler of a stream of responses.
pub(super) fn streaming<F, T>(handler: F) -> Handler
where
    F: Fn(Request, Responses) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), Failure>> + Send + 'static,
{
    Arc::new(move |invocation| {
        if !invocation.streams {
            return Box::pin(async { Err(CallError::Streams) });
        }
        let responses = invocation.responses.clone();
        match invocation.request() {
            Ok(request) => {
                let running = handler(request, responses);
                Box::pin(async move { running.await.map(|()| Bytes::new()).map_err(CallError::Failed) })
            }
            Err(error) => malformed(&error),
        }
    })
}

fn encode(answer: &impl Serialize) -> Result<Bytes, CallError> {
    let body = serde_json::to_vec(answer).map_err(|error| CallError::Failed(error.into()))?;
    Ok(body.into())
}

fn malformed(error: &serde_json::Error) -> Running {
    let error = CallError::Malformed(error.to_string());
    Box::pin(async move { Err(error) })
}
