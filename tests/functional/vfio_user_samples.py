# SPDX-License-Identifier: GPL-2.0-or-later
"""libvfio-user's sample programs, and what each declares.

`server`, `null` and `gpio-pci-idio-16` serve their first client: what they
declare is asked from a second process of the same program by the raw client.
`lspci` only prints its config space; linked with tests/interop/serve-lspci.c
it serves what it has printed, and the print is what it declares.
"""

from pathlib import Path
import re
import shutil
import subprocess

from vfio_user_case import REPOSITORY, VFIOUserTest
from vfio_user_raw import RawClient
from vfio_user_server import wait_until

CONFIG_SIZE = 4096
DUMP_LINE = re.compile(r'^[0-9a-f]+:((?: [0-9a-f]{2}){16})$', re.MULTILINE)
DUMP_DEADLINE = 30


class VFIOUserSampleTest(VFIOUserTest):
    """Start samples together with what they declare."""

    def serve_declared(self, name, *args):
        """A sample's server, and the config space that it declares."""
        with RawClient(self.serve_sample(name, *args).socket) as raw:
            declared = raw.config()
        return self.serve_sample(name, *args), declared

    def build_lspci(self):
        """The sample "lspci", linked so that it serves."""
        compiler = shutil.which('cc')
        if not compiler:
            self.skipTest('no C compiler "cc" to link the sample "lspci" '
                          'with serve-lspci.c; install build-essential')
        source = Path(self.data_file()).parent.parent / 'subprojects'
        source = source / 'libvfio-user'
        built = Path(self.sample_path('lspci')).parent.parent / 'lib'
        library = next((built / name for name in ('libvfio-user.so',
                                                  'libvfio-user.a')
                        if (built / name).exists()), None)
        if not library:
            self.skipTest(f'no libvfio-user library in {built}')
        program = self.scratch_file('serve-lspci')
        subprocess.run(
            [compiler, '-Wall', '-Werror', '-o', program,
             '-I', source / 'include',
             REPOSITORY / 'tests' / 'interop' / 'serve-lspci.c',
             source / 'samples' / 'lspci.c', library, f'-Wl,-rpath,{built}',
             '-Wl,--wrap=vfu_create_ctx,--wrap=vfu_destroy_ctx',
             '-ljson-c'], check=True)
        return program

    def serve_lspci(self):
        """The sample "lspci" made to serve, and the space it printed."""
        server = self.serve_program(self.build_lspci(),
                                    socket_env='SERVE_LSPCI_SOCKET')
        wait_until(lambda: len(self.printed(server)) == CONFIG_SIZE,
                   DUMP_DEADLINE, f'{server.log} has the config space')
        return server, self.printed(server)

    @staticmethod
    def printed(server):
        """The config space in the log of the sample."""
        return bytes.fromhex(''.join(DUMP_LINE.findall(server.log_text())))
