#!/bin/bash
# PID 1 of one test host.   init.sh DIRECTORY
#
# Starts in fresh uts, mount, pid, ipc and network namespaces, builds the host's own root from DIRECTORY and the
# machine's /usr, moves there, and then obeys lines on standard input: `sshd` and `no-sshd`. End of input means that the
# owner is gone: PID 1 ends, and the kernel ends every process of the host with it. A line `run NAME COMMAND` starts a
# service, whose output goes to /var/log/NAME.log.
#
# Talks on standard output: `pid N` (N as the machine sees us), `sshd N` and `run N` (N as the host sees it), `no-sshd`.
set -eu
umask 022
directory=$1
root=$directory/root
source "$directory/settings"  # from `host.py`; lists are words with blanks between them, pairs have a `=`

read -r outer _ </proc/self/stat  # a builtin, so that it is our own; /proc is still the machine's
echo "pid $outer"

hostname "$name"
mount --bind "$root" "$root"
at() { mkdir -p "$root$1"; }  # a mount point

# Programs are the machine's, except its interpreters and what else the host shall lack, which whiteouts hide.
mount --rbind /usr "$root/usr"
mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
mkdir "$root"/mnt/{bin,bin.work,etc,etc.work}
for file in /usr/bin/{python,pypy,pip,pydoc,idle,2to3}*; do
    [ -e "$file" ] && mknod "$root/mnt/bin/${file##*/}" c 0 0
done
for name in $hidden; do [ ! -e "/usr/bin/$name" ] || mknod "$root/mnt/bin/$name" c 0 0; done
mount -t overlay -o "lowerdir=/usr/bin,upperdir=$root/mnt/bin,workdir=$root/mnt/bin.work" overlay "$root/usr/bin"
mount -t tmpfs -o mode=755 tmpfs "$root/usr/local"
mkdir -p "$root"/usr/local/{bin,sbin,lib}
cp -a "$directory/bin/." "$root/usr/local/bin"

# In /usr/local/bin, which is on every default PATH, stand the interpreters that this host has.
mount -t tmpfs -o mode=755 tmpfs "$root/opt"
for pair in $interpreters; do
    minor=${pair%%=*}
    at "/opt/python$minor"
    mount --bind -o ro "${pair#*=}" "$root/opt/python$minor"
    ln -s "/opt/python$minor/bin/python$minor" "$root/usr/local/bin/python$minor"
    for alias in python3 python; do
        [ -L "$root/usr/local/bin/$alias" ] || ln -s "python$minor" "$root/usr/local/bin/$alias"
    done
done
for pair in $libraries; do  # where a shared build of Python looks for its library
    mkdir -p "$(dirname "$root${pair#*=}")"
    ln -sf "${pair%%=*}" "$root${pair#*=}"
done

cp -a "$directory/etc/." "$root/mnt/etc"
mount -t overlay -o "lowerdir=/etc,upperdir=$root/mnt/etc,workdir=$root/mnt/etc.work" overlay "$root/etc"
mount --rbind /sys "$root/sys"
if [ -n "$freezer" ]; then  # a part of its own, so that hosts of one name in two labs don't meet there
    mkdir -p "$freezer"
    mount --bind "$freezer" "$root/sys/fs/cgroup/freezer"
fi
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty net/tun; do
    [ -e "/dev/$device" ] || continue
    mkdir -p "$(dirname "$root/dev/$device")"
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for n in 0 1 2; do ln -s "/proc/self/fd/$n" "$root/dev/std$(printf 'in out err' | cut -d' ' -f$((n + 1)))"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

for pair in $binds; do
    at "${pair#*=}"
    mount --bind "${pair%%=*}" "$root${pair#*=}"
done
for pair in $tmpfs; do
    at "${pair%%=*}"
    mount -t tmpfs -o "mode=1777,${pair#*=}" tmpfs "$root${pair%%=*}"
done
for path in $readonly; do
    at "$path"
    mount --bind "$root$path" "$root$path"
    mount -o remount,ro,bind "$root$path"
done
mount -o remount,ro,bind "$root/usr" 2>/dev/null || true  # root of a host can't change the machine's programs

cd "$root"
mkdir -p .machine
pivot_root . .machine
cd /
umount -l /.machine
rmdir /.machine

sshd=
while read -r word service command; do
    case $word in
        sshd)
            [ -n "$sshd" ] || { /usr/sbin/sshd -D -e </dev/null >/dev/null 2>>/var/log/sshd.log & sshd=$!; }
            echo "sshd $sshd" ;;
        no-sshd)
            [ -z "$sshd" ] || { kill "$sshd"; wait "$sshd" || true; sshd=; }
            echo no-sshd ;;
        run)
            $command </dev/null >>"/var/log/$service.log" 2>&1 &
            echo "run $!" ;;
    esac
done
