//! A loaded module.

use super::{Config, PTX_VERSION, lock};
use crate::decode::{Symbols, kernel};
use crate::error::{LoadError, MemoryError};
use crate::exec::code::Kernel;
use crate::memory::global::Global;
use crate::ptx::{Ast, Init, Space, parse};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Kernels ready to run, and the module's variables. Dropping it frees the variables.
#[derive(Debug)]
pub struct Module {
    kernels: HashMap<String, Arc<Kernel>>,
    variables: HashMap<String, (u64, u64)>,
    memory: Arc<Mutex<Global>>,
}

impl Module {
    pub(super) fn load(
        text: &str,
        config: &Config,
        memory: &Arc<Mutex<Global>>,
    ) -> Result<Self, LoadError> {
        let ast = parse(text)?;
        if ast.version > PTX_VERSION {
            return Err(LoadError::Version { module: ast.version, driver: PTX_VERSION });
        }
        if ast.target > config.capability {
            return Err(LoadError::Target { module: ast.target, device: config.capability });
        }
        let mut module =
            Self { kernels: HashMap::new(), variables: HashMap::new(), memory: Arc::clone(memory) };
        let symbols = module.place(&ast)?;
        for function in ast.functions.iter().filter(|function| function.entry) {
            let kernel = kernel(&ast, &symbols, function)?;
            module.kernels.insert(function.name.clone(), Arc::new(kernel));
        }
        Ok(module)
    }

    /// Gives the variables addresses and their initial values.
    fn place(&mut self, ast: &Ast) -> Result<Symbols, LoadError> {
        let mut symbols = Symbols::default();
        let mut memory = lock(&self.memory);
        let variables =
            || ast.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Const));
        for variable in variables() {
            let size = variable.size.max(1);
            let address = memory.allocate(size, variable.space == Space::Const)?;
            self.variables.insert(variable.name.clone(), (address, size));
            symbols.globals.insert(variable.name.clone(), (variable.space, address));
            memory.fill(address, &[0], size)?;
        }
        for variable in variables() {
            let mut at = self.variables[&variable.name].0;
            for init in &variable.init {
                match init {
                    Init::Bytes(bytes) => memory.write(at, bytes)?,
                    Init::Address { symbol, offset } => {
                        let Some((target, _)) = self.variables.get(symbol) else {
                            let what = format!("`{symbol}` is not declared");
                            return Err(LoadError::Operand { line: 0, what });
                        };
                        memory.write(at, &target.wrapping_add_signed(*offset).to_le_bytes())?;
                    }
                }
                at += variable.element;
            }
        }
        drop(memory);
        Ok(symbols)
    }

    pub(crate) fn kernel(&self, name: &str) -> Option<Arc<Kernel>> {
        self.kernels.get(name).cloned()
    }

    /// The names of the kernels, in no order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// Address and bytes of a variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        self.variables.get(name).copied()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let mut memory = lock(&self.memory);
        for (address, _) in self.variables.values() {
            // Only a program that freed the variable itself makes this fail; nothing is left to do.
            let _: Result<(), MemoryError> = memory.free(*address);
        }
    }
}
