//! DPDK's telemetry socket as a way to ask a running process: commands of ours beside DPDK's own.
//!
//! What shows itself is an [`Exhibit`], one of several perhaps, which clients tell apart by name or
//! number; it is asked on DPDK's telemetry threads, one of which serves each client. Nothing here is known to lcores: whoever answers reads what they have published, or waits for
//! them, never they for it.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use dpdk_sys as sys;

use super::Eal;

/// What answers questions: a stack, say.
pub trait Exhibit: Send + Sync {
    /// What no other exhibit of the process is called.
    fn name(&self) -> &str;

    /// What tells it from the others, for the list of them.
    fn summary(&self) -> Answer;

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

/// The command that lists the exhibits, which is answered here.
pub const LIST: Command = Command {
    name: "stacks",
    help: "Returns the stacks of the process, oldest first. Others take one, by name or number: stack=0",
};

/// What the parameter that chooses an exhibit begins with.
const CHOICE: &str = "stack=";

/// Bytes that DPDK sends of a text, its end included (RTE_TEL_MAX_STRING_LEN).
const LONGEST: usize = 128;

/// The exhibits there are, oldest first. Locked by whoever comes or goes, and for each question.
static SHOWN: Mutex<Vec<Weak<dyn Exhibit>>> = Mutex::new(Vec::new());

/// Lets the exhibit be asked `commands` through the telemetry socket, if the EAL was started with one,
/// until it is dropped. Of several in a process the one answers that the question names by its
/// parameter `stack=`, the one that was shown first if there is none.
pub fn show(_eal: &'static Eal, commands: &[Command], exhibit: &Arc<impl Exhibit + 'static>) {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        for Command { name, help } in commands.iter().chain([&LIST]) {
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
    let command = command.strip_prefix(PREFIX)?;
    // Asked unlocked: the answer may take its time.
    let shown: Vec<_> = {
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().filter_map(Weak::upgrade).collect()
    };
    if command == LIST.name {
        let row = |(at, exhibit): (usize, &Arc<dyn Exhibit>)| {
            (at.to_string(), Value::Table(exhibit.summary()))
        };
        return Some(shown.iter().enumerate().map(row).collect());
    }
    let (choices, rest): (Vec<_>, Vec<_>) =
        parameter.split(',').map(str::trim).partition(|word| word.starts_with(CHOICE));
    let exhibit = match choices.first().and_then(|word| word.strip_prefix(CHOICE)) {
        None => shown.first()?,
        Some(name) => match shown.iter().find(|exhibit| exhibit.name() == name) {
            Some(exhibit) => exhibit,
            None => shown.get(name.parse::<usize>().ok()?)?,
        },
    };
    exhibit.answer(command, &rest.join(","))
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

    struct Named(&'static str);

    impl Exhibit for Named {
        fn name(&self) -> &str {
            self.0
        }

        fn summary(&self) -> Answer {
            vec![("name".to_owned(), Value::Text(self.0.to_owned()))]
        }

        fn answer(&self, command: &str, parameter: &str) -> Option<Answer> {
            (command == "name")
                .then(|| vec![(parameter.to_owned(), Value::Text(self.0.to_owned()))])
        }
    }

    #[test]
    fn exhibits_are_chosen_by_name_and_the_oldest_that_is_left_answers_else() {
        let eal = Eal::init(crate::dpdk::TEST_ARGS).unwrap();
        let first = Arc::new(Named("first"));
        let second = Arc::new(Named("second"));
        show(eal, &[], &first);
        show(eal, &[], &second);
        let asked = |parameter: &str| answer("/prequeue/name", parameter);
        let is = |parameter: &str, name: &str| {
            Some(vec![(parameter.to_owned(), Value::Text(name.to_owned()))])
        };
        assert_eq!(asked("stack=second"), is("", "second"));
        assert_eq!(asked("stack=second,who,2"), is("who,2", "second"));
        assert_eq!(asked("who, stack=first"), is("who", "first"));
        assert_eq!(asked("stack=third"), None);
        assert_eq!(asked("stack=1000"), None);
        // Other tests of this process may show theirs, which know no such command.
        assert!(asked("who").is_none() || asked("who") == is("who", "first"));

        let listed = answer("/prequeue/stacks", "").unwrap();
        let at = |name: &str| {
            let row = Value::Table(vec![("name".to_owned(), Value::Text(name.to_owned()))]);
            listed
                .iter()
                .find(|(_, value)| *value == row)
                .map(|(number, _)| number.clone())
                .unwrap()
        };
        // Whatever else there is may go meanwhile.
        let by_number = asked(&format!("stack={}", at("first")));
        assert!(
            by_number == is("", "first") || by_number == is("", "second") || by_number.is_none()
        );
        drop(first);
        assert!(asked("who").is_none() || asked("who") == is("who", "second"));
        assert_eq!(asked("stack=first"), None);
        assert_eq!(answer("/ethdev/name", "who"), None);
    }
}
