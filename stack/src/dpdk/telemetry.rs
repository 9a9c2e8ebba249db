//! DPDK's telemetry socket as a way to ask a running process: commands of ours beside DPDK's own.
//!
//! What shows itself is an [`Exhibit`]; it is asked on DPDK's telemetry threads, one of which serves each
//! client. Nothing here is known to lcores: whoever answers reads what they have published, or waits for
//! them, never they for it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use dpdk_sys as sys;

use super::Eal;

/// What answers questions: a stack, say.
pub trait Exhibit: Send + Sync {
    /// The answer to a command, named without `/prequeue/`, with its parameter, which is empty if there
    /// is none. `None` if there is no answer, which the client sees as null.
    fn answer(&self, command: &str, parameter: &str) -> Option<Answer>;
}

/// An answer: values by name. Names are letters, digits and underscores.
pub type Answer = Vec<(String, Value)>;

/// A value of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Text of up to 127 bytes, as much as DPDK sends; what is longer is cut.
    Text(String),
    /// Values by name, none of them a table.
    Table(Answer),
}

/// A command and what `dpdk-telemetry.py` says of it.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The name, without `/prequeue/`.
    pub name: &'static str,
    /// What it returns, and its parameter.
    pub help: &'static str,
}

/// What all commands begin with.
pub const PREFIX: &str = "/prequeue/";

/// Bytes that DPDK sends of a text, its end included (RTE_TEL_MAX_STRING_LEN).
const LONGEST: usize = 128;

/// The exhibits there are, oldest first. Locked by whoever comes or goes, and for each question.
static SHOWN: Mutex<Vec<Weak<dyn Exhibit>>> = Mutex::new(Vec::new());

/// Lets the exhibit be asked `commands` through the telemetry socket, if the EAL was started with one,
/// until it is dropped. Of several in a process the one that was shown first answers.
pub fn show(_eal: &'static Eal, commands: &[Command], exhibit: &Arc<impl Exhibit + 'static>) {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        for Command { name, help } in commands {
            let (Ok(name), Ok(help)) =
                (CString::new(format!("{PREFIX}{name}")), CString::new(*help))
            else {
                continue;
            };
            // SAFETY: both texts end and are copied; the function may be called as long as the process
            // lives. A command that finds no place is not there, which its clients are told.
            unsafe {
                sys::rte_telemetry_register_cmd(name.as_ptr(), Some(on_command), help.as_ptr())
            };
        }
    });
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    shown.retain(|other| other.strong_count() > 0);
    let exhibit: Weak<dyn Exhibit> = Arc::downgrade(exhibit) as Weak<dyn Exhibit>;
    shown.push(exhibit);
}

/// Called by DPDK on a thread of its own for each command of ours.
unsafe extern "C" fn on_command(
    command: *const c_char,
    parameter: *const c_char,
    data: *mut sys::rte_tel_data,
) -> c_int {
    let text = |at: *const c_char| {
        if at.is_null() {
            return String::new();
        }
        // SAFETY: DPDK's text, which ends, and lives as long as the call.
        unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
    };
    let (command, parameter) = (text(command), text(parameter));
    // A panic must not cross into C; the client is told that there is no answer.
    let answer = catch_unwind(AssertUnwindSafe(|| answer(&command, &parameter))).ok().flatten();
    match answer {
        Some(answer) => {
            // SAFETY: `data` is DPDK's, for us to fill until we return.
            unsafe { fill(data, &answer) };
            0
        }
        None => -1,
    }
}

fn answer(command: &str, parameter: &str) -> Option<Answer> {
    let first = {
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().find_map(Weak::upgrade)
    };
    first?.answer(command.strip_prefix(PREFIX)?, parameter)
}

/// Writes an answer down.
///
/// # Safety
/// `data` is valid and nobody else's.
unsafe fn fill(data: *mut sys::rte_tel_data, answer: &Answer) {
    // SAFETY: by the caller. What does not fit is left out.
    unsafe { sys::rte_tel_data_start_dict(data) };
    for (name, value) in answer {
        let Ok(name) = CString::new(name.as_str()) else { continue };
        match value {
            Value::Number(number) => {
                // SAFETY: as above; the name ends and is copied.
                unsafe { sys::pqs_tel_add_dict_u64(data, name.as_ptr(), *number) };
            }
            Value::Text(text) => {
                let Ok(text) = CString::new(cut(text)) else { continue };
                // SAFETY: as above; both texts end and are copied.
                unsafe { sys::rte_tel_data_add_dict_string(data, name.as_ptr(), text.as_ptr()) };
            }
            Value::Table(inner) => {
                // SAFETY: null if there is no memory.
                let table = unsafe { sys::rte_tel_data_alloc() };
                if table.is_null() {
                    return;
                }
                // SAFETY: `table` is ours until it is added, and then freed by DPDK, or by us if it
                // could not be.
                unsafe {
                    fill(table, inner);
                    if sys::rte_tel_data_add_dict_container(data, name.as_ptr(), table, 0) != 0 {
                        sys::rte_tel_data_free(table);
                    }
                }
            }
        }
    }
}

/// As much of a text as DPDK sends.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(cut(&long).len(), 126);
    }

    #[test]
    fn the_oldest_exhibit_that_is_left_answers() {
        struct Named(u64);
        impl Exhibit for Named {
            fn answer(&self, command: &str, parameter: &str) -> Option<Answer> {
                (command == "name").then(|| vec![(parameter.to_owned(), Value::Number(self.0))])
            }
        }
        let eal = Eal::init(crate::dpdk::TEST_ARGS).unwrap();
        let first = Arc::new(Named(1));
        let second = Arc::new(Named(2));
        show(eal, &[], &first);
        show(eal, &[], &second);
        let asked = || answer("/prequeue/name", "who");
        let is = |number| Some(vec![("who".to_owned(), Value::Number(number))]);
        // Other tests of this process may show theirs, which know no such command.
        assert!(asked().is_none() || asked() == is(1));
        drop(first);
        assert!(asked().is_none() || asked() == is(2));
        assert_eq!(answer("/ethdev/name", "who"), None);
    }
}
