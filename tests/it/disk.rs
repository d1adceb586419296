//! A disk that keeps no more than it must: every operation in a folder is recorded, one of them goes wrong, and of what was not flushed
//! any part may be gone.
//!
//! What a power cut leaves (`Simulation::left`):
//! - of a file, the bytes that were flushed, and of what was done to it since, the first so many steps; of the next write a beginning, maybe
//!   with zeros in the place of the rest;
//! - of the names in folders, those that were flushed, and of the changes since, any in any order, but for those that are about the same
//!   file or the same name, which keep their order. A rename is one change: journaling file systems leave one of the two names;
//! - of files that were written past the recorded operations, the bytes they had when they were flushed, or nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use optune::disk::{self, Operation, Watcher};

use crate::store::Space;
use crate::tables::Draw;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This and every further operation fails, as if the process were dead.
    Stop,
    /// The operation fails with this error of the system, once or from then on.
    Fail { error: i32, lasting: bool },
    /// What is opened to be read cannot be, with this error of the system; these operations have numbers of their own.
    Unreadable { error: i32 },
}

/// The system's errors on Linux.
pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;
pub const EMFILE: i32 = 24;

/// A folder whose operations are watched.
pub struct Simulation(Mutex<State>);

struct State {
    disk: Disk,
    random: Draw,
    fault: Fault,
    /// The number of the operation that goes wrong.
    at: u64,
    done: u64,
    /// How often something was opened to be read.
    reads: u64,
    failed: Option<String>,
    /// What is not flushed when it should be, as on a disk that lies: folders, or files.
    lies: Option<bool>,
}

impl Simulation {
    /// `fault` befalls the operation number `at`, from 0, in `folder`; everything there now is safely on disk.
    pub fn new(folder: &Path, fault: Fault, at: u64, seed: u64) -> Arc<Self> {
        let state = State { disk: Disk::read(folder), random: Draw(seed), fault, at, done: 0, reads: 0, failed: None, lies: None };
        Arc::new(Self(Mutex::new(state)))
    }

    /// From now on files (`false`) or folders (`true`) are not flushed when they should be.
    pub fn lie(&self, about_folders: bool) {
        self.0.lock().unwrap().lies = Some(about_folders);
    }

    /// Does the work while the folder is watched.
    pub fn run<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        let folder = self.0.lock().unwrap().disk.root.clone();
        let _watch = disk::watch(&folder, self.clone());
        work()
    }

    /// How many operations were done or tried.
    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().done
    }

    /// How often something was opened to be read.
    pub fn reads(&self) -> u64 {
        self.0.lock().unwrap().reads
    }

    /// The first operation that went wrong.
    pub fn failed(&self) -> Option<String> {
        self.0.lock().unwrap().failed.clone()
    }

    /// What a power cut now could leave, in a folder of its own.
    pub fn left(&self) -> Space {
        let (state, space) = (&mut *self.0.lock().unwrap(), Space::new());
        state.disk.leave(space.path(), &mut state.random);
        space
    }
}

impl State {
    /// A look at a file or folder, which changes nothing.
    fn read(&mut self, path: &Path, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let number = self.reads;
        self.reads += 1;
        let (is_dead, has_failed) = (self.fault == Fault::Stop && self.failed.is_some(), self.failed.is_some());
        let error = match self.fault {
            Fault::Unreadable { error } if number == self.at => Some(io::Error::from_raw_os_error(error)),
            Fault::Fail { error, lasting: true } if has_failed && error != ENOSPC => Some(io::Error::from_raw_os_error(error)),
            _ if is_dead => Some(io::Error::other("stopped by a test")),
            _ => None,
        };
        match error {
            None => act(),
            Some(error) => {
                self.failed.get_or_insert_with(|| format!("read {number}: {}", path.display()));
                Err(error)
            }
        }
    }
}

impl Watcher for Simulation {
    fn operate(&self, operation: Operation, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        if let Operation::Read(path) = operation {
            return state.read(path, act);
        }
        let number = state.done;
        state.done += 1;
        let error = match state.fault {
            Fault::Stop if number >= state.at => Some(io::Error::other("stopped by a test")),
            Fault::Fail { error, lasting } if number == state.at || (lasting && number > state.at) => {
                can_fail(&operation, error).then(|| io::Error::from_raw_os_error(error))
            }
            _ => None,
        };
        match error {
            None => {
                act()?;
                let is_lost = match operation {
                    Operation::Sync(_) => state.lies == Some(false),
                    Operation::SyncFolder(_) => state.lies == Some(true),
                    _ => false,
                };
                if !is_lost {
                    state.disk.record(operation);
                }
                Ok(())
            }
            Some(error) => {
                // A write that fails may have written some of it; a dead process writes nothing more.
                if let Operation::Append(path, bytes) = operation
                    && (number == state.at || state.fault != Fault::Stop)
                {
                    let some = &bytes[..state.random.below(bytes.len() as i32 + 1) as usize];
                    fs::File::options().append(true).open(path)?.write_all(some)?;
                    state.disk.record(Operation::Append(path, some));
                }
                state.failed.get_or_insert_with(|| format!("operation {number}: {}", described(&operation)));
                Err(error)
            }
        }
    }
}

/// A full disk lets names be removed and files be cut; a process without free descriptors can do what needs none.
fn can_fail(operation: &Operation, error: i32) -> bool {
    match operation {
        Operation::RemoveFile(_) | Operation::RemoveFolder(_) | Operation::Cut(..) => error == EIO,
        Operation::Create(_) | Operation::Open(_) | Operation::SyncFolder(_) | Operation::Read(_) => true,
        Operation::Append(..) | Operation::Sync(_) | Operation::CreateFolder(_) | Operation::Rename(..) | Operation::Link(..) => {
            error != EMFILE
        }
    }
}

fn described(operation: &Operation) -> String {
    match operation {
        Operation::Append(path, bytes) => format!("Append({}, {} bytes)", path.display(), bytes.len()),
        operation => format!("{operation:?}"),
    }
}

/// A name in a folder.
type Name = (usize, String);

/// What a file's bytes went through since they were flushed.
#[derive(Clone)]
enum Change {
    Cut(usize),
    Append(Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Cut(length) => bytes.truncate(*length),
            Change::Append(more) => bytes.extend(more),
        }
    }
}

#[derive(Default)]
struct Inode {
    is_folder: bool,
    flushed: Vec<u8>,
    changes: Vec<Change>,
}

/// A change of names that was not flushed: `inode` lost one and got one, or either.
struct Naming {
    inode: usize,
    lost: Option<Name>,
    got: Option<Name>,
}

impl Naming {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.lost.iter().chain(&self.got)
    }

    fn is_in(&self, folder: usize) -> bool {
        self.names().any(|(inner, _)| *inner == folder)
    }

    /// Whether this cannot have happened without `earlier`.
    fn follows(&self, earlier: &Naming) -> bool {
        let same_name = self.names().any(|name| earlier.names().any(|other| other == name));
        // A folder is removed after all in it.
        let removed = self.got.is_none() && earlier.is_in(self.inode);
        self.inode == earlier.inode || same_name || removed
    }

    fn apply(&self, names: &mut BTreeMap<Name, usize>) {
        if let Some(lost) = &self.lost {
            names.remove(lost);
        }
        if let Some(got) = &self.got {
            names.insert(got.clone(), self.inode);
        }
    }
}

/// A folder and all in it: as processes see it, and as it is on disk. Inode 0 is the folder itself.
struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    names: BTreeMap<Name, usize>,
    flushed: BTreeMap<Name, usize>,
    waiting: Vec<Naming>,
}

impl Disk {
    fn read(root: &Path) -> Self {
        let folder = Inode { is_folder: true, ..Inode::default() };
        let mut disk =
            Self { root: root.to_path_buf(), inodes: vec![folder], names: BTreeMap::new(), flushed: BTreeMap::new(), waiting: Vec::new() };
        let mut links = HashMap::new();
        disk.read_folder(root, 0, &mut links);
        disk.flushed = disk.names.clone();
        disk
    }

    /// Hard links stay links where the system tells files apart by numbers.
    fn read_folder(&mut self, folder: &Path, inode: usize, links: &mut HashMap<u64, usize>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let number = number(&path);
            let known = number.and_then(|number| links.get(&number).copied());
            let inner = known.unwrap_or_else(|| {
                let flushed = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
                self.add(Inode { is_folder: path.is_dir(), flushed, changes: Vec::new() })
            });
            links.extend(number.map(|number| (number, inner)));
            self.names.insert((inode, last(&path)), inner);
            if path.is_dir() {
                self.read_folder(&path, inner, links);
            }
        }
    }

    fn add(&mut self, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    /// The file or folder at a path; one that was made past the recorded operations is taken in as it is.
    fn inode(&mut self, path: &Path) -> usize {
        if path == self.root {
            return 0;
        }
        let name = self.name(path);
        if let Some(inode) = self.names.get(&name) {
            return *inode;
        }
        let changes = if path.is_dir() { Vec::new() } else { vec![Change::Append(fs::read(path).unwrap())] };
        let inode = self.add(Inode { is_folder: path.is_dir(), flushed: Vec::new(), changes });
        self.rename(inode, None, Some(name));
        inode
    }

    fn name(&mut self, path: &Path) -> Name {
        (self.inode(path.parent().unwrap()), last(path))
    }

    fn rename(&mut self, inode: usize, lost: Option<Name>, got: Option<Name>) {
        let naming = Naming { inode, lost, got };
        naming.apply(&mut self.names);
        self.waiting.push(naming);
    }

    /// An operation that was done.
    fn record(&mut self, operation: Operation) {
        match operation {
            Operation::Read(_) => {}
            Operation::Create(path) | Operation::Open(path) => {
                let name = self.name(path);
                match self.names.get(&name) {
                    Some(inode) if matches!(operation, Operation::Create(_)) => self.inodes[*inode].changes.push(Change::Cut(0)),
                    Some(_) => {}
                    None => {
                        let inode = self.add(Inode::default());
                        self.rename(inode, None, Some(name));
                    }
                }
            }
            Operation::Append(path, bytes) => {
                let inode = self.inode(path);
                self.inodes[inode].changes.push(Change::Append(bytes.to_vec()));
            }
            Operation::Cut(path, length) => {
                let inode = self.inode(path);
                self.inodes[inode].changes.push(Change::Cut(length as usize));
            }
            Operation::Sync(path) => {
                let inode = self.inode(path);
                self.inodes[inode].flushed = fs::read(path).unwrap();
                self.inodes[inode].changes.clear();
            }
            Operation::CreateFolder(path) => {
                let name = self.name(path);
                let inode = self.add(Inode { is_folder: true, ..Inode::default() });
                self.rename(inode, None, Some(name));
            }
            Operation::SyncFolder(path) => {
                let folder = self.inode(path);
                self.flush(folder);
            }
            Operation::Rename(from, to) => {
                let (lost, got) = (self.name(from), self.name(to));
                // What was made past the recorded operations is at its new name already.
                let inode = self.names.get(&lost).copied();
                let inode = inode.unwrap_or_else(|| {
                    let changes = if to.is_dir() { Vec::new() } else { vec![Change::Append(fs::read(to).unwrap())] };
                    self.add(Inode { is_folder: to.is_dir(), flushed: Vec::new(), changes })
                });
                self.rename(inode, Some(lost), Some(got));
            }
            Operation::Link(from, to) => {
                let (inode, got) = (self.inode(from), self.name(to));
                self.rename(inode, None, Some(got));
            }
            Operation::RemoveFile(path) | Operation::RemoveFolder(path) => {
                let lost = self.name(path);
                if let Some(inode) = self.names.get(&lost).copied() {
                    self.rename(inode, Some(lost), None);
                }
            }
        }
    }

    /// Has the names in a folder on disk, and what they cannot be without.
    fn flush(&mut self, folder: usize) {
        let mut needed: Vec<bool> = self.waiting.iter().map(|naming| naming.is_in(folder)).collect();
        for later in (0..self.waiting.len()).rev() {
            if needed[later] {
                for (earlier, naming) in self.waiting[..later].iter().enumerate() {
                    needed[earlier] |= self.waiting[later].follows(naming);
                }
            }
        }
        let mut needed = needed.into_iter();
        let (flushed, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|_| needed.next().unwrap());
        self.waiting = waiting;
        let flushed: Vec<Naming> = flushed;
        flushed.iter().for_each(|naming| naming.apply(&mut self.flushed));
    }

    fn leave(&self, target: &Path, random: &mut Draw) {
        // Some power cuts lose everything that may be lost, some nothing, most some of it.
        let likely = [0, 3, 7, 10][random.below(4) as usize];
        let mut names = self.flushed.clone();
        let mut happened: Vec<bool> = Vec::new();
        for (index, naming) in self.waiting.iter().enumerate() {
            let possible = (0..index).all(|earlier| happened[earlier] || !naming.follows(&self.waiting[earlier]));
            happened.push(possible && random.below(10) < likely);
            if happened[index] {
                naming.apply(&mut names);
            }
        }
        let mut written = HashMap::new();
        self.leave_folder(0, target, &names, &mut written, likely, random);
    }

    fn leave_folder(
        &self,
        folder: usize,
        target: &Path,
        names: &BTreeMap<Name, usize>,
        written: &mut HashMap<usize, PathBuf>,
        likely: i32,
        random: &mut Draw,
    ) {
        for ((_, name), inode) in names.range((folder, String::new())..(folder + 1, String::new())) {
            let path = target.join(name);
            if self.inodes[*inode].is_folder {
                fs::create_dir(&path).unwrap();
                self.leave_folder(*inode, &path, names, written, likely, random);
            } else if let Some(other) = written.get(inode) {
                fs::hard_link(other, &path).unwrap();
            } else {
                fs::write(&path, self.inodes[*inode].left(likely, random)).unwrap();
                written.insert(*inode, path);
            }
        }
    }
}

impl Inode {
    fn left(&self, likely: i32, random: &mut Draw) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        for change in &self.changes {
            if random.below(10) < likely {
                change.apply(&mut bytes);
            } else {
                if let Change::Append(more) = change {
                    let some = random.below(more.len() as i32 + 1) as usize;
                    bytes.extend(&more[..some]);
                    if random.chance() {
                        bytes.extend(vec![0; more.len() - some]);
                    }
                }
                break;
            }
        }
        bytes
    }
}

#[cfg(unix)]
fn number(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|metadata| metadata.ino())
}

#[cfg(not(unix))]
fn number(_: &Path) -> Option<u64> {
    None
}

fn last(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_string()
}

/// The numbers of the simulations to make: as many as OPTUNE_CRASHES says, from OPTUNE_SEED on if that is given, which alone is one.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OPTUNE_SEED") {
        Some(seed) => seed..seed + number("OPTUNE_CRASHES").unwrap_or(1),
        None => 0..number("OPTUNE_CRASHES").unwrap_or(default),
    }
}

/// Says how to do a simulation again if the test fails while this lives.
pub struct Replay(pub u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("OPTUNE_SEED={} does this simulation again", self.0);
        }
    }
}

/// Does work in a folder that is stopped after so many operations; what it returned, and whether it was stopped.
pub fn stop_after<R>(folder: &Path, operations: u64, work: impl FnOnce() -> R) -> (R, bool) {
    let simulation = Simulation::new(folder, Fault::Stop, operations, operations);
    let result = simulation.run(work);
    (result, simulation.failed().is_some())
}

/// A simulation with some fault somewhere in the first `operations`.
pub fn misfortune(folder: &Path, operations: u64, random: &mut Draw) -> (Arc<Simulation>, Fault) {
    let fault = match random.below(4) {
        0 => {
            let error = [ENOSPC, EIO, EMFILE][random.below(3) as usize];
            Fault::Fail { error, lasting: random.chance() }
        }
        _ => Fault::Stop,
    };
    let at = random.bits() % operations;
    (Simulation::new(folder, fault, at, random.bits()), fault)
}
