//! A simple file system in memory, served through FUSE, like those of cameras and USB sticks: names without some
//! characters and case, no owners, modes, links, special files, attributes or holes, times in steps of two seconds,
//! and a limit for the size of a file. The kernels of test hosts often lack such file systems.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;

use crate::disks::loopfs;

/// Maximum size of a file in bytes.
pub const MAX_FILE: u64 = 4 << 20;
/// Characters that no name can have.
const REFUSED: &[u8] = b"\"*:<>?\\|";
/// Largest write of the kernel.
const MAX_WRITE: u32 = 128 * 1024;
/// Bytes of the largest request.
const REQUEST: usize = MAX_WRITE as usize + 64 * 1024;
/// Number of the root directory.
const ROOT: u64 = 1;

/// The mounted file system; unmounted on drop.
#[derive(Debug)]
pub struct SimpleFs {
    path: PathBuf,
    server: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl SimpleFs {
    /// Mounts an empty file system.
    ///
    /// # Panics
    /// If mounting fails.
    #[track_caller]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sendshot-fuse-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let path = dir.path().join("mnt");
        std::fs::create_dir(&path).unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("simple", &path, "fuse", flags, &*options).unwrap();
        let server = std::thread::spawn(move || Server::new(device).serve());
        Self {
            path,
            server: Some(server),
            _dir: dir,
        }
    }

    /// Path of the mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for SimpleFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SimpleFs {
    fn drop(&mut self) {
        loopfs::unmount(&self.path);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Entries of a directory by their name in lower case: the name and the number.
type Entries = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

#[derive(Debug, Default)]
struct Node {
    /// Of a directory.
    entries: Option<Entries>,
    data: Vec<u8>,
    /// Times of access and modification, in seconds.
    times: (u64, u64),
}

struct Server {
    device: File,
    nodes: HashMap<u64, Node>,
    last: u64,
}

type Reply = Result<Vec<u8>, Errno>;

/// Reads numbers of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> u32 {
        let (number, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_le_bytes(*number)
    }

    fn u64(&mut self) -> u64 {
        let (number, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u64::from_le_bytes(*number)
    }

    fn skip(&mut self, len: usize) {
        self.0 = &self.0[len..];
    }

    fn name(&mut self) -> &'a [u8] {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap();
        let name = &self.0[..len];
        self.0 = &self.0[len + 1..];
        name
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_short(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn checked(name: &[u8]) -> Result<Vec<u8>, Errno> {
    match name
        .iter()
        .any(|byte| REFUSED.contains(byte) || *byte < b' ')
    {
        true => Err(Errno::INVAL),
        false => Ok(name.to_ascii_lowercase()),
    }
}

impl Server {
    fn new(device: File) -> Self {
        let root = Node {
            entries: Some(BTreeMap::new()),
            ..Node::default()
        };
        Self {
            device,
            nodes: HashMap::from([(ROOT, root)]),
            last: ROOT,
        }
    }

    fn serve(&mut self) {
        let mut buffer = vec![0; REQUEST];
        loop {
            let len = match self.device.read(&mut buffer) {
                Ok(len) => len,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                // It was unmounted.
                Err(_) => return,
            };
            let mut fields = Fields(&buffer[4..len]);
            let (opcode, unique, node) = (fields.u32(), fields.u64(), fields.u64());
            fields.skip(16);
            // FORGET, INTERRUPT and BATCH_FORGET have no reply.
            if [2, 36, 42].contains(&opcode) {
                continue;
            }
            let reply = self.answer(opcode, node, fields);
            let (error, payload) = match reply {
                Ok(payload) => (0, payload),
                Err(e) => (-e.raw_os_error(), Vec::new()),
            };
            let mut out = Vec::new();
            put_short(&mut out, &[16 + payload.len() as u32, error as u32]);
            put(&mut out, &[unique]);
            out.extend_from_slice(&payload);
            // The caller may have been interrupted.
            let _ = self.device.write(&out);
        }
    }

    fn answer(&mut self, opcode: u32, node: u64, mut fields: Fields<'_>) -> Reply {
        match opcode {
            26 => Ok(init()),
            1 => self.lookup(node, fields.name()),
            3 => self.attributes(node),
            4 => self.set_attributes(node, fields),
            8 => {
                let mode = fields.u32();
                fields.skip(12);
                match mode & 0o170_000 {
                    0o100_000 => self.make(node, fields.name(), Node::default()),
                    _ => Err(Errno::PERM),
                }
            }
            9 => {
                fields.skip(8);
                let dir = Node {
                    entries: Some(BTreeMap::new()),
                    ..Node::default()
                };
                self.make(node, fields.name(), dir)
            }
            // SYMLINK and LINK.
            6 | 13 => Err(Errno::PERM),
            10 | 11 => self.remove(node, fields.name()),
            12 => {
                let to = fields.u64();
                self.rename(node, to, 0, fields)
            }
            45 => {
                let (to, flags) = (fields.u64(), fields.u32());
                fields.skip(4);
                self.rename(node, to, flags, fields)
            }
            14 | 27 => Ok(vec![0; 16]),
            15 => self.read(node, fields),
            16 => self.write(node, fields),
            17 => Ok(statfs()),
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, FSYNCDIR, ACCESS and DESTROY.
            18 | 20 | 25 | 29 | 30 | 34 | 38 => Ok(Vec::new()),
            28 => self.read_dir(node, fields),
            _ => Err(Errno::NOSYS),
        }
    }

    fn node(&mut self, node: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::NOENT)
    }

    fn entries(&mut self, dir: u64) -> Result<&mut Entries, Errno> {
        self.node(dir)?.entries.as_mut().ok_or(Errno::NOTDIR)
    }

    fn attribute(&mut self, number: u64) -> Reply {
        let node = self.node(number)?;
        let (size, times) = (node.data.len() as u64, node.times);
        let mode = if node.entries.is_some() {
            0o040_700
        } else {
            0o100_700
        };
        let mut out = Vec::new();
        put(
            &mut out,
            &[number, size, size.div_ceil(512), times.0, times.1, times.1],
        );
        put_short(&mut out, &[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]);
        Ok(out)
    }

    fn attributes(&mut self, node: u64) -> Reply {
        let mut out = vec![0; 16];
        out.extend(self.attribute(node)?);
        Ok(out)
    }

    fn entry(&mut self, node: u64) -> Reply {
        let mut out = Vec::new();
        put(&mut out, &[node, 0, 0, 0, 0]);
        out.extend(self.attribute(node)?);
        Ok(out)
    }

    fn lookup(&mut self, dir: u64, name: &[u8]) -> Reply {
        let name = name.to_ascii_lowercase();
        let node = self.entries(dir)?.get(&name).ok_or(Errno::NOENT)?.1;
        self.entry(node)
    }

    fn make(&mut self, dir: u64, name: &[u8], node: Node) -> Reply {
        let key = checked(name)?;
        let number = self.last + 1;
        let entries = self.entries(dir)?;
        if entries.contains_key(&key) {
            return Err(Errno::EXIST);
        }
        entries.insert(key, (name.to_vec(), number));
        self.last = number;
        self.nodes.insert(number, node);
        self.entry(number)
    }

    fn remove(&mut self, dir: u64, name: &[u8]) -> Reply {
        let key = name.to_ascii_lowercase();
        let node = self.entries(dir)?.get(&key).ok_or(Errno::NOENT)?.1;
        let entries = self.node(node)?.entries.as_ref();
        if entries.is_some_and(|entries| !entries.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        self.entries(dir)?.remove(&key);
        Ok(Vec::new())
    }

    fn rename(&mut self, from: u64, to: u64, flags: u32, mut fields: Fields<'_>) -> Reply {
        const NOREPLACE: u32 = 1;
        let (old, new) = (fields.name().to_ascii_lowercase(), fields.name());
        let key = checked(new)?;
        if flags & NOREPLACE != 0 && self.entries(to)?.contains_key(&key) {
            return Err(Errno::EXIST);
        }
        let (_, node) = self.entries(from)?.remove(&old).ok_or(Errno::NOENT)?;
        self.entries(to)?.insert(key, (new.to_vec(), node));
        Ok(Vec::new())
    }

    fn set_attributes(&mut self, node: u64, mut fields: Fields<'_>) -> Reply {
        let valid = fields.u32();
        fields.skip(12);
        let size = fields.u64();
        fields.skip(8);
        let (atime, mtime) = (fields.u64(), fields.u64());
        let has = |bit: u32| valid & (1 << bit) != 0;
        // Mode, user and group.
        if has(0) || has(1) || has(2) {
            return Err(Errno::PERM);
        }
        if has(3) && size > MAX_FILE {
            return Err(Errno::FBIG);
        }
        let changed = self.node(node)?;
        if has(3) {
            changed.data.resize(size as usize, 0);
        }
        if has(4) {
            changed.times.0 = atime & !1;
        }
        if has(5) {
            changed.times.1 = mtime & !1;
        }
        self.attributes(node)
    }

    fn read(&mut self, node: u64, mut fields: Fields<'_>) -> Reply {
        fields.skip(8);
        let (offset, len) = (fields.u64() as usize, fields.u32() as usize);
        let data = &self.node(node)?.data;
        let start = offset.min(data.len());
        Ok(data[start..data.len().min(start + len)].to_vec())
    }

    fn write(&mut self, node: u64, mut fields: Fields<'_>) -> Reply {
        fields.skip(8);
        let (offset, len) = (fields.u64(), fields.u32() as usize);
        fields.skip(20);
        let end = offset + len as u64;
        if end > MAX_FILE {
            return Err(Errno::FBIG);
        }
        let data = &mut self.node(node)?.data;
        if data.len() < end as usize {
            data.resize(end as usize, 0);
        }
        data[offset as usize..end as usize].copy_from_slice(&fields.0[..len]);
        let mut out = Vec::new();
        put_short(&mut out, &[len as u32, 0]);
        Ok(out)
    }

    fn read_dir(&mut self, node: u64, mut fields: Fields<'_>) -> Reply {
        fields.skip(8);
        let (offset, size) = (fields.u64(), fields.u32() as usize);
        let mut out = Vec::new();
        let entries = self.entries(node)?.values().cloned().collect::<Vec<_>>();
        for (at, (name, number)) in (1_u64..).zip(entries).skip(offset as usize) {
            let kind = if self.node(number)?.entries.is_some() {
                4
            } else {
                8
            };
            let len = (24 + name.len()).next_multiple_of(8);
            if out.len() + len > size {
                break;
            }
            let end = out.len() + len;
            put(&mut out, &[number, at]);
            put_short(&mut out, &[name.len() as u32, kind]);
            out.extend_from_slice(&name);
            out.resize(end, 0);
        }
        Ok(out)
    }
}

fn init() -> Vec<u8> {
    let mut out = Vec::new();
    // Version, readahead, flags (FUSE_BIG_WRITES), background requests, largest write, granularity of times.
    put_short(&mut out, &[7, 31, 0, 1 << 5, 0, MAX_WRITE, 1]);
    out.resize(64, 0);
    out
}

fn statfs() -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, &[1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 20]);
    put_short(&mut out, &[4096, 255, 4096]);
    out.resize(80, 0);
    out
}
