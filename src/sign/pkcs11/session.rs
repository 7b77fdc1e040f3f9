//! Opens a session with one token: loads the module, finds the token, logs in, and finds and reads objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};

use super::error::{TokenProblem, describe, failed};
use super::uri::Wanted;

/// Loaded modules by path, for the life of the process. A module is initialised once per process, and some cannot be
/// unloaded.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

pub(super) struct Token {
    pub session: Session,
    info: TokenInfo,
}

impl Token {
    pub fn open(wanted: &Wanted) -> Result<Self, TokenProblem> {
        let module = module(&wanted.module)?;
        let (slot, info) = find_token(&module, wanted)?;
        let session = module.open_ro_session(slot).map_err(failed("opening a session"))?;
        Ok(Self { session, info })
    }

    pub fn log_in(&self, wanted: &Wanted) -> Result<(), TokenProblem> {
        // Without a PIN the token's own keypad is used.
        if wanted.pin.is_none() && !self.info.protected_authentication_path() {
            return match self.info.login_required() {
                true => Err(TokenProblem::NoPin),
                false => Ok(()),
            };
        }
        match self.session.login(UserType::User, wanted.pin.as_ref()) {
            // The login applies to the whole process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                Err(TokenProblem::WrongPin)
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenProblem::Locked),
            Err(error) => Err(failed("logging in")(error)),
        }
    }

    /// The objects of a class with all these attributes.
    pub fn find(&self, class: ObjectClass, named: &[Attribute]) -> Result<Vec<ObjectHandle>, TokenProblem> {
        let template = [&[Attribute::Class(class)], named].concat();
        self.session.find_objects(&template).map_err(failed("finding the key"))
    }

    /// The names of objects, as parts of URIs.
    pub fn names(&self, objects: &[ObjectHandle]) -> Result<Vec<String>, TokenProblem> {
        let names = objects.iter().map(|object| {
            let mut parts = Vec::new();
            for attribute in self.attributes(*object, &[AttributeType::Label, AttributeType::Id])? {
                match attribute {
                    Attribute::Label(label) if !label.is_empty() => {
                        parts.push(format!("object={}", String::from_utf8_lossy(&label)));
                    }
                    Attribute::Id(id) if !id.is_empty() => {
                        parts.push(format!(
                            "id={}",
                            id.iter().map(|byte| format!("%{byte:02x}")).collect::<String>()
                        ));
                    }
                    _ => {}
                }
            }
            Ok(match parts.as_slice() {
                [] => "one without a name".to_string(),
                _ => parts.join(";"),
            })
        });
        names.collect()
    }

    /// The attributes that the object has.
    pub fn attributes(
        &self,
        object: ObjectHandle,
        attributes: &[AttributeType],
    ) -> Result<Vec<Attribute>, TokenProblem> {
        self.session
            .get_attributes(object, attributes)
            .map_err(failed("reading the key's attributes"))
    }
}

fn module(path: &Path) -> Result<Pkcs11, TokenProblem> {
    let refused = |reason: String| TokenProblem::Module {
        path: path.to_path_buf(),
        reason,
    };
    // The dynamic linker would search its directories for a bare name.
    if !path.is_absolute() {
        return Err(refused("the path must be absolute".into()));
    }
    let mut modules = MODULES.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(|error| {
        refused(match error {
            Error::LibraryLoading(reason) => reason.to_string(),
            other => describe(&other),
        })
    })?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Two paths may lead to the same file.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(refused(describe(&error))),
    }
    modules.insert(path.to_path_buf(), module.clone());
    Ok(module)
}

fn find_token(module: &Pkcs11, wanted: &Wanted) -> Result<(Slot, TokenInfo), TokenProblem> {
    let failed = failed("finding the token");
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for slot in module.get_slots_with_initialized_token().map_err(&failed)? {
        let info = module.get_token_info(slot).map_err(&failed)?;
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let fits = wanted.slot.is_none_or(|wanted| wanted == slot.id())
            && is(&wanted.token, info.label())
            && is(&wanted.manufacturer, info.manufacturer_id())
            && is(&wanted.model, info.model())
            && is(&wanted.serial, info.serial_number());
        let name = format!(
            "token={};serial={};slot-id={}",
            info.label(),
            info.serial_number(),
            slot.id()
        );
        match fits {
            true => found.push((slot, info, name)),
            false => others.push(name),
        }
    }
    match found.len() {
        0 => Err(TokenProblem::NoToken(others)),
        1 => Ok(found.swap_remove(0)).map(|(slot, info, _)| (slot, info)),
        _ => Err(TokenProblem::SeveralTokens(
            found.into_iter().map(|(_, _, name)| name).collect(),
        )),
    }
}
