//! 32-bit system calls (`int 0x80`, which every process of x86 may make): no tracepoint tells of them. The programs on
//! system calls sit, once more, on the functions of these, by trampolines.

use super::{Attachment, Error, Hook, programs};
use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError, links::FdLink},
};
use std::{collections::BTreeSet, path::Path};

/// A call whose function every kernel with 32-bit calls has.
pub const ANY: &str = "__ia32_sys_dup";

/// An instance of the object for them.
pub struct Compat {
    ebpf: Ebpf,
    /// The functions that this kernel has.
    functions: BTreeSet<String>,
}

impl Compat {
    /// With an instance over the pinned maps, and a kernel of these types.
    pub fn new(ebpf: Ebpf, types: &ringfence_btf::Btf) -> Self {
        let has = |function: &str| types.function_number(function).is_some();
        let calls = programs::TRACEPOINT.iter().filter_map(call);
        let functions = calls.flat_map(|call| programs::compat_functions_of(call, has)).collect();
        Self { ebpf, functions }
    }

    /// What of these attachments there is for 32-bit calls: the names of the links, and what they are of.
    fn wanted<'a>(&self, attachments: &'a [Attachment]) -> Vec<(String, &'a Attachment, String)> {
        let mut wanted = Vec::new();
        for attachment in attachments {
            let Some(call) = call(attachment) else { continue };
            let side = if matches!(attachment.hook, Hook::Enter(_)) { "enter" } else { "exit" };
            for function in programs::compat_functions_of(call, |function| self.functions.contains(function)) {
                wanted.push((format!("{side}-{function}"), attachment, function));
            }
        }
        wanted
    }

    /// Whether a link is missing in the folder.
    pub fn is_missing(&self, attachments: &[Attachment], links: &Path) -> bool {
        self.wanted(attachments).iter().any(|(name, ..)| !links.join(name).exists())
    }

    /// Attaches what is missing, and pins it. The names of all links that these attachments need.
    pub fn attach(
        &mut self,
        attachments: &[Attachment],
        links: &Path,
        btf: Option<&Btf>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut names = BTreeSet::new();
        for (name, attachment, function) in self.wanted(attachments) {
            let pin = links.join(&name);
            if !pin.exists() {
                let btf = btf.expect("the types are read where a link is missing");
                let program = attachment.program;
                let failed = |source| Error::Program { program, hook: name.clone(), source };
                let link = self.link(attachment, &function, btf).map_err(failed)?;
                link.pin(pin).map_err(|error| Error::Pin(name.clone(), error.to_string()))?;
            }
            names.insert(name);
        }
        Ok(names)
    }

    fn link(&mut self, attachment: &Attachment, function: &str, btf: &Btf) -> Result<FdLink, ProgramError> {
        let program =
            self.ebpf.program_mut(attachment.program).expect("every attachment names a program of the object");
        on_function(program, function, btf)
    }
}

/// The call that an attachment is on, if it is on one.
fn call(attachment: &Attachment) -> Option<&'static str> {
    match attachment.hook {
        Hook::Enter(call) | Hook::Exit(call) => Some(call),
        Hook::Trace(_) | Hook::Lsm(_) | Hook::Function(_) => None,
    }
}

/// Puts a program on a call's function. The link keeps what was loaded; the program is free to be loaded for the next.
pub fn on_function(program: &mut Program, function: &str, btf: &Btf) -> Result<FdLink, ProgramError> {
    match program {
        Program::FEntry(program) => {
            program.load(function, btf)?;
            let id = program.attach()?;
            let link = program.take_link(id)?;
            program.unload()?;
            Ok(link.into())
        }
        Program::FExit(program) => {
            program.load(function, btf)?;
            let id = program.attach()?;
            let link = program.take_link(id)?;
            program.unload()?;
            Ok(link.into())
        }
        _ => unreachable!("in this form, programs on system calls sit on functions"),
    }
}
