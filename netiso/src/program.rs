//! Programs of the datapath, by name.

use crate::Error;
use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

/// Loads the program of that name, and makes a `handle` of our own to it, so that it can be attached without the whole
/// object at hand.
pub(crate) fn load<P>(
    ebpf: &mut Ebpf,
    name: &'static str,
    load: fn(&mut P) -> Result<(), ProgramError>,
    handle: impl FnOnce(&P) -> Result<P, ProgramError>,
) -> Result<P, Error>
where
    for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(Error::NoProgram(name))?;
    let program: &mut P = program.try_into().map_err(|_: ProgramError| Error::NoProgram(name))?;
    match load(program) {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => handle(program),
        Err(error) => Err(error),
    }
    .map_err(|source| Error::Load { program: name, source })
}
