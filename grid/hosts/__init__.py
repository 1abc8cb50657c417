"""The machines that grid may use, and the file that lists them."""

from grid.hosts.fixed import FixedHosts
from grid.hosts.host import Host, as_hosts, compose_command, create_host_list, parse_address
from grid.hosts.inventory import choose_hosts, find_hosts_file, load_hosts

__all__ = [
    "FixedHosts",
    "Host",
    "as_hosts",
    "choose_hosts",
    "compose_command",
    "create_host_list",
    "find_hosts_file",
    "load_hosts",
    "parse_address",
]
