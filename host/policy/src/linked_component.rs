//! Component in one engine: its native code, its instantiation, and the indices of its exports.

use std::sync::Arc;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use super::code_budget::{CodeBudget, CodeReservation};
use super::component::{Role, export_name, interface, is_allowed_import};
use super::engine::PolicyEngine;
use super::load_error::LoadError;
use super::state::CallState;
use super::wasi;
use super::wit::{encode_export, judge_export, meta_export, observe_export, retry_export, sign_export};

/// Linked component, ready to be instantiated in one engine.
pub(super) struct LinkedComponent {
    pub(super) engine: Arc<PolicyEngine>,
    pub(super) pre: InstancePre<CallState>,
    pub(super) exports: Exports,
    /// Reservation for its native code.
    _taken: CodeReservation,
}

/// Indices of a component's exports, one for each interface that it has.
pub(super) struct Exports {
    pub(super) meta: meta_export::GuestIndices,
    pub(super) encode: Option<encode_export::GuestIndices>,
    pub(super) sign: Option<sign_export::GuestIndices>,
    pub(super) judge: Option<judge_export::GuestIndices>,
    pub(super) retry: Option<retry_export::GuestIndices>,
    pub(super) observe: Option<observe_export::GuestIndices>,
}

impl LinkedComponent {
    /// Links a compiled component.
    pub(super) fn new(
        engine: Arc<PolicyEngine>,
        component: &Component,
        imports: &Imports,
        room: &Arc<CodeBudget>,
    ) -> Result<Self, LoadError> {
        let taken = room.take(code_size(component));
        Self::link(engine, component, &imports.wasi, taken)
    }

    /// Makes a copy of the component in another engine. Components with WASI are never copied.
    ///
    /// # Errors
    /// Returns an error if the operating system has no memory for the code.
    pub(super) fn copy(&self, engine: Arc<PolicyEngine>, taken: CodeReservation) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let artefact = self.pre.component().serialize().map_err(failed)?;
        let component = engine.deserialize(&artefact).map_err(failed)?;
        Self::link(engine, &component, &[], taken)
    }

    fn link(
        engine: Arc<PolicyEngine>,
        component: &Component,
        wasi: &[String],
        taken: CodeReservation,
    ) -> Result<Self, LoadError> {
        let names = Names::new(&engine, component);
        let pre = engine
            .link(component, wasi)
            .map_err(|error| LoadError::WrongType { name: "imports".to_owned(), detail: format!("{error:#}") })?;
        let exports = Exports {
            meta: names.find("meta", || meta_export::GuestIndices::new(&pre))?.ok_or(LoadError::NoMeta)?,
            encode: names.find("encode", || encode_export::GuestIndices::new(&pre))?,
            sign: names.find("sign", || sign_export::GuestIndices::new(&pre))?,
            judge: names.find("judge", || judge_export::GuestIndices::new(&pre))?,
            retry: names.find("retry", || retry_export::GuestIndices::new(&pre))?,
            observe: names.find("observe", || observe_export::GuestIndices::new(&pre))?,
        };
        Ok(Self { engine, pre, exports, _taken: taken })
    }

    /// Returns the size of the native code, in bytes.
    pub(super) fn code_size(&self) -> usize {
        code_size(self.pre.component())
    }

    /// Returns whether the component imports a function of the interface `keys`.
    pub(super) fn uses_keys(&self) -> bool {
        let engine = self.engine.engine();
        let component = self.pre.component().component_type();
        let mut keys = component.imports(engine).filter(|(name, _)| interface(name) == Some("keys"));
        keys.any(|(_, item)| match item.ty {
            ComponentItem::ComponentInstance(keys) => {
                keys.exports(engine).any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
            }
            _ => false,
        })
    }

    /// Compares the types of the exports with `wit/`, on an instance that is made for it. A component that cannot be instantiated passes:
    /// each call of it ends in a fault with the reason, and the first call is made before an upload is accepted.
    pub(super) fn check_types(&self) -> Result<(), LoadError> {
        let exports = &self.exports;
        let checked = self.engine.trial(|store| {
            let Ok(instance) = self.pre.instantiate(&mut *store) else { return Ok(()) };
            typed("meta", exports.meta.load(&mut *store, &instance))?;
            exports.encode.iter().try_for_each(|it| typed("encode", it.load(&mut *store, &instance)))?;
            exports.sign.iter().try_for_each(|it| typed("sign", it.load(&mut *store, &instance)))?;
            exports.judge.iter().try_for_each(|it| typed("judge", it.load(&mut *store, &instance)))?;
            exports.retry.iter().try_for_each(|it| typed("retry", it.load(&mut *store, &instance)))?;
            exports.observe.iter().try_for_each(|it| typed("observe", it.load(&mut *store, &instance)))
        });
        checked.map_err(|error| LoadError::Compile(format!("{error:#}")))?
    }
}

impl Exports {
    /// Returns whether the component exports `role`.
    pub(super) fn has(&self, role: Role) -> bool {
        match role {
            Role::Encode => self.encode.is_some(),
            Role::Sign => self.sign.is_some(),
            Role::Judge => self.judge.is_some(),
            Role::Retry => self.retry.is_some(),
            Role::Observe => self.observe.is_some(),
        }
    }
}

/// Imports of a component, all of which a policy may have.
pub(super) struct Imports {
    /// Interfaces of WASI, by the names that the component imports.
    pub(super) wasi: Vec<String>,
}

impl Imports {
    pub(super) fn new(engine: &PolicyEngine, component: &Component) -> Result<Self, LoadError> {
        let mut wasi = Vec::new();
        for (name, item) in component.component_type().imports(engine.engine()) {
            if !(matches!(item.ty, ComponentItem::ComponentInstance(_)) && is_allowed_import(name)) {
                return Err(LoadError::Import(name.to_owned()));
            }
            if wasi::interface(name).is_some() {
                wasi.push(name.to_owned());
            }
        }
        Ok(Self { wasi })
    }
}

/// Interfaces of `carillon:policy` that a component exports.
struct Names(Vec<String>);

impl Names {
    fn new(engine: &PolicyEngine, component: &Component) -> Self {
        let ty = component.component_type();
        let names = ty.exports(engine.engine()).filter_map(|(name, _)| interface(name)).map(str::to_owned);
        Self(names.collect())
    }

    /// Returns the exports of an interface; `None` if the component does not have it.
    fn find<T>(&self, interface: &str, indices: impl FnOnce() -> wasmtime::Result<T>) -> Result<Option<T>, LoadError> {
        if !self.has(interface) {
            return Ok(None);
        }
        indices().map(Some).map_err(|error| wrong_type(interface, &error))
    }

    fn has(&self, interface: &str) -> bool {
        self.0.iter().any(|name| name == interface)
    }
}

fn typed<T>(interface: &str, loaded: wasmtime::Result<T>) -> Result<(), LoadError> {
    loaded.map(drop).map_err(|error| wrong_type(interface, &error))
}

fn wrong_type(interface: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::WrongType { name: export_name(interface), detail: format!("{error:#}") }
}

fn code_size(component: &Component) -> usize {
    let image = component.image_range();
    image.end.addr() - image.start.addr()
}
