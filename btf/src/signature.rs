//! What functions and tracepoints are called with.

use crate::{
    Btf, Error,
    types::{Field, Id, Shape},
};

/// Parts of a type's name that are put together before the rest is left out.
const LONGEST_NAME: usize = 16;

/// An argument of a function or tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name; may be empty, the compiler does not always keep it.
    pub name: String,
    /// Its type, as in C without qualifiers: `struct task_struct *`.
    pub ty: String,
}

impl Btf {
    /// Arguments of a raw tracepoint (`tp_btf`), in order; `None` if the kernel does not have it.
    ///
    /// Names come from the tracepoint's stub `__traceiter_NAME` (since Linux 5.10) and are empty without it.
    pub fn tracepoint_args(&self, tracepoint: &str) -> Option<Vec<Argument>> {
        // typedef void (*btf_trace_NAME)(void *data, ...): include/trace/bpf_probe.h
        let typedef = format!("btf_trace_{tracepoint}");
        let typed = self.named(&typedef).find_map(|(_, ty)| match ty.shape {
            Shape::Typedef(pointer) => match self.types.resolve(pointer).ok()?.shape {
                Shape::Pointer(prototype) => self.parameters(prototype),
                _ => None,
            },
            _ => None,
        })?;
        let named = self.function(&format!("__traceiter_{tracepoint}")).filter(|named| named.len() == typed.len());
        self.arguments(named.unwrap_or(typed).get(1..)?).ok()
    }

    /// Arguments of a kernel function, in order; `None` if it is not there, or was inlined everywhere.
    pub fn function_args(&self, function: &str) -> Option<Vec<Argument>> {
        self.arguments(self.function(function)?).ok()
    }

    /// The number by which a program calls a kernel function (a kfunc); `None` if it is not there.
    pub fn function_number(&self, function: &str) -> Option<u32> {
        let (id, _) = self.named(function).find(|(_, ty)| matches!(ty.shape, Shape::Function { .. }))?;
        Some(id)
    }

    fn function(&self, name: &str) -> Option<&[Field]> {
        self.named(name).find_map(|(_, ty)| match ty.shape {
            Shape::Function { prototype } => self.parameters(prototype),
            _ => None,
        })
    }

    fn parameters(&self, prototype: Id) -> Option<&[Field]> {
        match &self.types.resolve(prototype).ok()?.shape {
            Shape::Prototype { parameters } => self.types.fields.get(parameters.clone()),
            _ => None,
        }
    }

    fn arguments(&self, fields: &[Field]) -> Result<Vec<Argument>, Error> {
        let argument = |field: &Field| {
            Ok(Argument { name: self.types.text(field.name).into_owned(), ty: self.type_name(field.ty)? })
        };
        fields.iter().map(argument).collect()
    }

    fn type_name(&self, id: Id) -> Result<String, Error> {
        let (mut next, mut stars) = (id, String::new());
        for _ in 0..LONGEST_NAME {
            let ty = self.types.get(next)?;
            let name = self.types.text(ty.name);
            let noun = match ty.shape {
                Shape::Modifier(inner) => {
                    next = inner;
                    continue;
                }
                Shape::Pointer(inner) => {
                    next = inner;
                    stars.push('*');
                    continue;
                }
                Shape::Void => "void".into(),
                Shape::Struct { .. } | Shape::Forward => format!("struct {name}"),
                Shape::Union { .. } => format!("union {name}"),
                Shape::Enum { .. } => format!("enum {name}"),
                Shape::Prototype { .. } => "function".into(),
                Shape::Array { .. } => "array".into(),
                _ => name.into_owned(),
            };
            return Ok(if stars.is_empty() { noun } else { format!("{noun} {stars}") });
        }
        Err(Error::Damaged { what: "an endless chain of pointers", id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::kernel_like;

    #[test]
    fn a_tracepoint_is_described_without_its_hidden_argument() {
        let btf = Btf::parse(&kernel_like()).expect("the fixture is sound");
        let args = btf.tracepoint_args("file_seen").expect("there");
        let expected = [("", "struct file *"), ("", "unsigned int")];
        assert_eq!(args.iter().map(|arg| (&*arg.name, &*arg.ty)).collect::<Vec<_>>(), expected);
        assert_eq!(btf.tracepoint_args("file_lost"), None);
        assert_eq!(btf.function_args("security_file_open").map(|args| args.len()), Some(3));
        assert_eq!(btf.function_args("file"), None);
    }
}
