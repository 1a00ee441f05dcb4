-- SPDX-License-Identifier: GPL-2.0-or-later
--
-- vfio-user for Wireshark and tshark: messages that QEMU recorded with
-- -device vfio-user-pci,x-record=FILE
--
--   wireshark -X lua_script:vfio-user.lua FILE
--
-- or for good: copy it to the plugins folder that Help > About Wireshark >
-- Folders names (~/.local/lib/wireshark/plugins).
--
-- The layouts are those of docs/interop/vfio-user.rst, the four bytes in front
-- of each message those of hw/vfio-user/pcapng.c.  A recording may hold
-- anything, also what broke a connection: nothing is taken from it that
-- Cursor:room() has not allowed.

local vfio_user = Proto("vfio_user", "vfio-user")

local HEAD, HEADER = 4, 16

local COMMANDS = {
    [1] = "VERSION", [2] = "DMA_MAP", [3] = "DMA_UNMAP",
    [4] = "DEVICE_GET_INFO", [5] = "DEVICE_GET_REGION_INFO",
    [6] = "DEVICE_GET_REGION_IO_FDS", [7] = "DEVICE_GET_IRQ_INFO",
    [8] = "DEVICE_SET_IRQS", [9] = "REGION_READ", [10] = "REGION_WRITE",
    [11] = "DMA_READ", [12] = "DMA_WRITE", [13] = "DEVICE_RESET",
    [14] = "DIRTY_PAGES", [15] = "REGION_WRITE_MULTI",
    [16] = "DEVICE_FEATURE", [17] = "MIG_DATA_READ", [18] = "MIG_DATA_WRITE",
}
local TYPES = { [0] = "command", [1] = "reply" }
local REGIONS = {
    [0] = "BAR 0", [1] = "BAR 1", [2] = "BAR 2", [3] = "BAR 3",
    [4] = "BAR 4", [5] = "BAR 5", [6] = "ROM", [7] = "config", [8] = "VGA",
}
local IRQS = {
    [0] = "INTx", [1] = "MSI", [2] = "MSI-X", [3] = "ERR", [4] = "REQ",
}
local CAPS = { [1] = "sparse mmap", [2] = "type" }
local IO_FD_TYPES = {
    [0] = "ioeventfd", [1] = "ioregionfd", [2] = "ioeventfd with shadow",
}
local FEATURES = {
    [1] = "MIGRATION", [2] = "MIG_DEVICE_STATE", [6] = "DMA_LOGGING_START",
    [7] = "DMA_LOGGING_STOP", [8] = "DMA_LOGGING_REPORT",
    [9] = "MIG_DATA_SIZE",
}
local STATES = {
    [0] = "ERROR", [1] = "STOP", [2] = "RUNNING", [3] = "STOP_COPY",
    [4] = "RESUMING", [5] = "RUNNING_P2P", [6] = "PRE_COPY",
    [7] = "PRE_COPY_P2P",
}
-- Linux, as on x86, Arm, RISC-V, s390x and most others
local ERRORS = {
    [0] = "none",
    "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC",
    "EBADF", "ECHILD", "EAGAIN", "ENOMEM", "EACCES", "EFAULT", "ENOTBLK",
    "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR", "EISDIR", "EINVAL",
    "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE",
    "EROFS", "EMLINK", "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG",
    "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP", [42] = "ENOMSG",
    [61] = "ENODATA", [62] = "ETIME", [71] = "EPROTO", [74] = "EBADMSG",
    [75] = "EOVERFLOW", [84] = "EILSEQ", [88] = "ENOTSOCK",
    [90] = "EMSGSIZE", [92] = "ENOPROTOOPT", [93] = "EPROTONOSUPPORT",
    [95] = "EOPNOTSUPP", [98] = "EADDRINUSE", [103] = "ECONNABORTED",
    [104] = "ECONNRESET", [105] = "ENOBUFS", [107] = "ENOTCONN",
    [108] = "ESHUTDOWN", [110] = "ETIMEDOUT", [111] = "ECONNREFUSED",
    [114] = "EALREADY", [115] = "EINPROGRESS", [116] = "ESTALE",
    [121] = "EREMOTEIO", [125] = "ECANCELED",
}

-- Fields ---------------------------------------------------------------------

local f = {}

local function number(name, label, bits, display, names)
    f[name] = ProtoField["uint" .. bits]("vfio_user." .. name, label,
                                         display or base.DEC, names)
end

local function flag(name, label, mask, bits)
    f[name] = ProtoField.bool("vfio_user." .. name, label, bits or 32, nil,
                              mask)
end

number("capture.version", "Version of the recording", 8)
number("capture.flags", "Flags of the recording", 8, base.HEX)
flag("from_server", "From the server", 1, 8)
flag("twin", "On the second socket", 2, 8)
flag("big_endian", "Big-endian", 4, 8)
number("fds", "Descriptors", 8)

number("id", "Message id", 16)
number("command", "Command", 16, base.DEC, COMMANDS)
number("size", "Size", 32)
number("flags", "Flags", 32, base.HEX)
f.type = ProtoField.uint32("vfio_user.type", "Type", base.DEC, TYPES, 0xf)
flag("no_reply", "No reply wanted", 0x10)
flag("is_error", "Error", 0x20)
number("error", "Error number", 32, base.DEC, ERRORS)
f.request_in = ProtoField.framenum("vfio_user.request_in", "Request in",
                                   base.NONE, frametype.REQUEST)
f.reply_in = ProtoField.framenum("vfio_user.reply_in", "Reply in", base.NONE,
                                 frametype.RESPONSE)
f.time = ProtoField.relative_time("vfio_user.time", "Time since the request")

number("major", "Major version", 16)
number("minor", "Minor version", 16)
f.capabilities = ProtoField.string("vfio_user.capabilities", "Capabilities")

number("argsz", "Argument size", 32)
number("reserved", "Reserved", 32, base.HEX)
number("address", "Address", 64, base.HEX)
number("offset", "Offset", 64, base.HEX)
number("length", "Length", 64, base.HEX)
number("count", "Count", 32)
number("count64", "Count", 64)
number("region", "Region", 32, base.DEC, REGIONS)
f.data = ProtoField.bytes("vfio_user.data", "Data")

number("dma.flags", "Flags", 32, base.HEX)
flag("dma.readable", "Readable", 1)
flag("dma.writeable", "Writeable", 2)
number("unmap.flags", "Flags", 32, base.HEX)
flag("unmap.dirty", "Get dirty bitmap", 1)
flag("unmap.all", "Unmap all", 2)

number("device.flags", "Flags", 32, base.HEX)
flag("device.reset", "Can be reset", 1)
flag("device.pci", "PCI device", 2)
number("device.regions", "Regions", 32)
number("device.irqs", "Interrupt indices", 32)

number("region.flags", "Flags", 32, base.HEX)
flag("region.read", "Readable", 1)
flag("region.write", "Writeable", 2)
flag("region.mmap", "Can be mapped", 4)
flag("region.caps", "Has capabilities", 8)
number("region.cap_offset", "First capability at", 32)
number("region.size", "Size", 64, base.HEX)
number("cap.id", "Capability", 16, base.DEC, CAPS)
number("cap.version", "Version", 16)
number("cap.next", "Next capability at", 32)
number("cap.areas", "Areas", 32)
number("cap.type", "Type", 32)
number("cap.subtype", "Subtype", 32)

number("io_fds.flags", "Flags", 32, base.HEX)
number("io_fd.index", "Descriptor", 32)
number("io_fd.type", "Type", 32, base.DEC, IO_FD_TYPES)
flag("io_fd.datamatch", "Data must match", 1)
flag("io_fd.pio", "Port I/O", 2)
number("io_fd.shadow_index", "Descriptor of the shadow memory", 32)
number("io_fd.shadow", "Offset in the shadow memory", 64, base.HEX)
number("io_fd.data", "Data to match", 64, base.HEX)
number("io_fd.user_data", "User data", 64, base.HEX)

number("irq.index", "Interrupt index", 32, base.DEC, IRQS)
number("irq.flags", "Flags", 32, base.HEX)
flag("irq.eventfd", "Eventfd", 1)
flag("irq.maskable", "Maskable", 2)
flag("irq.automasked", "Automasked", 4)
flag("irq.noresize", "Cannot be resized", 8)
number("irq_set.flags", "Flags", 32, base.HEX)
flag("irq_set.none", "Data: none", 1)
flag("irq_set.bool", "Data: bool", 2)
flag("irq_set.eventfd", "Data: eventfd", 4)
flag("irq_set.mask", "Mask", 8)
flag("irq_set.unmask", "Unmask", 16)
flag("irq_set.trigger", "Trigger", 32)
number("irq_set.start", "Start", 32)

number("feature.flags", "Flags", 32, base.HEX)
f["feature.index"] = ProtoField.uint32("vfio_user.feature.index", "Feature",
                                       base.DEC, FEATURES, 0xffff)
flag("feature.get", "Get", 0x10000)
flag("feature.set", "Set", 0x20000)
flag("feature.probe", "Probe", 0x40000)
number("migration.flags", "Migration", 64, base.HEX)
flag("migration.stop_copy", "Stop and copy", 1, 64)
flag("migration.p2p", "Peer to peer", 2, 64)
flag("migration.pre_copy", "Pre-copy", 4, 64)
number("state", "Device state", 32, base.DEC, STATES)
number("data_fd", "Descriptor (unused)", 32)
number("page_size", "Page size", 64, base.HEX)
number("ranges", "Ranges", 32)
f.bitmap = ProtoField.bytes("vfio_user.bitmap", "Dirty bitmap")
number("stop_copy_length", "Bytes of state", 64)

number("mig_data.size", "Size", 32)

local list = {}
for _, field in pairs(f) do
    list[#list + 1] = field
end
vfio_user.fields = list

local malformed = ProtoExpert.new("vfio_user.malformed", "Malformed message",
                                  expert.group.MALFORMED,
                                  expert.severity.ERROR)
local cut = ProtoExpert.new("vfio_user.cut",
                            "Not all of the message was recorded",
                            expert.group.UNDECODED, expert.severity.NOTE)
local refused = ProtoExpert.new("vfio_user.refused", "Refused",
                                expert.group.RESPONSE_CODE,
                                expert.severity.WARN)
local stray = ProtoExpert.new("vfio_user.stray",
                              "A reply to nothing that was recorded",
                              expert.group.SEQUENCE, expert.severity.WARN)
vfio_user.experts = { malformed, cut, refused, stray }

local frame_interface = Field.new("frame.interface_id")
local frame_time = Field.new("frame.time_epoch")

-- Reading ------------------------------------------------------------------

local function has(value, mask)
    return value % (2 * mask) >= mask
end

-- The bytes of a message, taken one after the other.  Once they do not suffice
-- (bad), nothing more is taken; that is said once.
local Cursor = {}
Cursor.__index = Cursor

local function new_cursor(tvb, at, limit, big)
    return setmetatable({ tvb = tvb, at = at, limit = limit, big = big,
                          bad = false }, Cursor)
end

-- What there should be, and what there is of it
function Cursor:left()
    return math.max(self.limit - self.at, 0)
end

function Cursor:captured()
    return math.max(math.min(self.limit, self.tvb:len()) - self.at, 0)
end

function Cursor:room(tree, len)
    if self.bad then
        return false
    end
    if self:left() < len then
        self.bad = true
        tree:add_proto_expert_info(malformed,
            "Too short: " .. self:left() .. " bytes where " .. len ..
            " belong")
    elseif self:captured() < len then
        -- The head of the tree tells of it.
        self.bad = true
    end
    return not self.bad
end

function Cursor:add(tree, field, len)
    local range = self.tvb(self.at, len)

    self.at = self.at + len
    if self.big then
        return tree:add(field, range), range
    end
    return tree:add_le(field, range), range
end

-- Take a number of @len bytes, a UInt64 if it is 8; nil where it is not there.
function Cursor:number(tree, name, len)
    local item, range

    if not self:room(tree, len) then
        return nil
    end
    item, range = self:add(tree, f[name], len)
    if len == 8 then
        return self.big and range:uint64() or range:le_uint64(), item
    end
    return self.big and range:uint() or range:le_uint(), item
end

function Cursor:u8(tree, name) return self:number(tree, name, 1) end
function Cursor:u16(tree, name) return self:number(tree, name, 2) end
function Cursor:u32(tree, name) return self:number(tree, name, 4) end
function Cursor:u64(tree, name) return self:number(tree, name, 8) end

-- Flags, and below them what each is called
function Cursor:flags(tree, name, parts, len)
    local value, item = self:number(tree, name, len or 4)

    if value then
        for _, part in ipairs(parts) do
            self.at = self.at - (len or 4)
            self:add(item, f[part], len or 4)
        end
    end
    return value
end

-- All that is left, or as much of it as was recorded
function Cursor:rest(tree, name)
    local len = self:captured()

    if not self.bad and len > 0 then
        tree:add(f[name], self.tvb(self.at, len))
    end
    self.at = self.limit
end

-- Payload ------------------------------------------------------------------
--
-- Each function takes the payload of one command: cursor, tree, whether it is a
-- reply.  It returns what is worth a place in the line of the message.

-- Of a UInt64: Lua's own numbers cannot hold them all.
local function hex(value)
    return value and "0x" .. value:tohex():gsub("^0+(.)", "%1") or "?"
end

local function named(names, value)
    return value and (names[value] or tostring(value)) or "?"
end

local payload = {}

payload[1] = function(c, tree)
    local major, minor = c:u16(tree, "major"), c:u16(tree, "minor")
    local len = c:captured()

    if not c.bad and len > 0 then
        local range = c.tvb(c.at, len)

        tree:add(f.capabilities, range, range:string())
        c.at = c.limit
    end
    return string.format("%s.%s", major or "?", minor or "?")
end

payload[2] = function(c, tree, reply)
    if reply then
        return ""
    end
    c:u32(tree, "argsz")
    local flags = c:flags(tree, "dma.flags",
                          { "dma.readable", "dma.writeable" })
    c:u64(tree, "offset")
    local address, length = c:u64(tree, "address"), c:u64(tree, "length")
    local how = not flags and "?" or (has(flags, 1) and "r" or "-") ..
                (has(flags, 2) and "w" or "-")
    return string.format("%s+%s %s", hex(address), hex(length), how)
end

payload[3] = function(c, tree)
    c:u32(tree, "argsz")
    c:flags(tree, "unmap.flags", { "unmap.dirty", "unmap.all" })
    local address, length = c:u64(tree, "address"), c:u64(tree, "length")
    return string.format("%s+%s", hex(address), hex(length))
end

payload[4] = function(c, tree, reply)
    c:u32(tree, "argsz")
    c:flags(tree, "device.flags", { "device.reset", "device.pci" })
    local regions = c:u32(tree, "device.regions")
    local irqs = c:u32(tree, "device.irqs")
    return reply and string.format("%s regions, %s interrupt indices",
                                   regions or "?", irqs or "?") or ""
end

local function sparse_areas(c, tree)
    local nr = c:u32(tree, "cap.areas") or 0

    c:u32(tree, "reserved")
    while nr > 0 and not c.bad do
        c:u64(tree, "offset")
        c:u64(tree, "length")
        nr = nr - 1
    end
end

-- A chain whose links only go forward, so it has an end.
local function region_caps(c, tree, start, at)
    while at and at > 0 and not c.bad do
        local where = start + at

        if where < c.at or where > c.limit then
            tree:add_proto_expert_info(malformed,
                "A capability at " .. at .. ", where none can be")
            return
        end
        c.at = where
        local branch = tree:add(vfio_user, c.tvb(math.min(where, c.tvb:len()),
                                                 0), "Capability")
        local id = c:u16(branch, "cap.id")
        c:u16(branch, "cap.version")
        at = c:u32(branch, "cap.next")
        branch:set_text("Capability: " .. named(CAPS, id))
        if id == 1 then
            sparse_areas(c, branch)
        elseif id == 2 then
            c:u32(branch, "cap.type")
            c:u32(branch, "cap.subtype")
        end
    end
end

payload[5] = function(c, tree, reply)
    local start = c.at

    c:u32(tree, "argsz")
    local flags = c:flags(tree, "region.flags",
                          { "region.read", "region.write", "region.mmap",
                            "region.caps" })
    local index = c:u32(tree, "region")
    local at = c:u32(tree, "region.cap_offset")
    local size = c:u64(tree, "region.size")
    c:u64(tree, "offset")
    if not reply then
        return named(REGIONS, index)
    end
    if flags and has(flags, 8) then
        region_caps(c, tree, start, at)
    end
    return string.format("%s size %s", named(REGIONS, index), hex(size))
end

-- An entry of 40 bytes, or of 48 as the servers of type 2 send it
local function io_fd(c, tree, stride)
    local stop = c.at + stride

    c:u64(tree, "offset")
    c:u64(tree, "length")
    c:u32(tree, "io_fd.index")
    local kind = c:u32(tree, "io_fd.type")
    c:flags(tree, "io_fds.flags", { "io_fd.datamatch", "io_fd.pio" })
    c:u32(tree, "io_fd.shadow_index")
    if kind == 2 then
        c:u64(tree, "io_fd.shadow")
        if stride >= 48 then
            c:u64(tree, "io_fd.data")
        end
    else
        c:u64(tree, kind == 1 and "io_fd.user_data" or "io_fd.data")
    end
    tree:append_text(": " .. named(IO_FD_TYPES, kind))
    c.at = math.max(c.at, stop)
end

payload[6] = function(c, tree, reply)
    local argsz = c:u32(tree, "argsz")
    c:u32(tree, "io_fds.flags")
    local index, count = c:u32(tree, "region"), c:u32(tree, "count")

    if reply and not c.bad and count > 0 then
        local stride = math.floor((argsz - 16) / count)

        if stride < 40 then
            tree:add_proto_expert_info(malformed, "Entries of " .. stride ..
                                       " bytes")
            return named(REGIONS, index)
        end
        for _ = 1, count do
            if c:captured() < 40 then
                c:room(tree, 40)
                break
            end
            io_fd(c, tree:add(vfio_user, c.tvb(c.at, 40), "Sub-region"),
                  stride)
        end
    end
    return string.format("%s, %s sub-regions", named(REGIONS, index),
                         count or "?")
end

payload[7] = function(c, tree, reply)
    c:u32(tree, "argsz")
    c:flags(tree, "irq.flags", { "irq.eventfd", "irq.maskable",
                                 "irq.automasked", "irq.noresize" })
    local index, count = c:u32(tree, "irq.index"), c:u32(tree, "count")
    return named(IRQS, index) ..
           (reply and ": " .. (count or "?") or "")
end

payload[8] = function(c, tree, reply)
    local what = ""

    if reply then
        return ""
    end
    c:u32(tree, "argsz")
    local flags = c:flags(tree, "irq_set.flags",
                          { "irq_set.none", "irq_set.bool", "irq_set.eventfd",
                            "irq_set.mask", "irq_set.unmask",
                            "irq_set.trigger" })
    local index = c:u32(tree, "irq.index")
    local start, count = c:u32(tree, "irq_set.start"), c:u32(tree, "count")
    for _, bit in ipairs({ { 1, "none" }, { 2, "bool" }, { 4, "eventfd" },
                           { 8, "mask" }, { 16, "unmask" },
                           { 32, "trigger" } }) do
        if flags and has(flags, bit[1]) then
            what = what .. " " .. bit[2]
        end
    end
    c:rest(tree, "data")
    return string.format("%s%s from %s count %s", named(IRQS, index), what,
                         start or "?", count or "?")
end

local function region_access(c, tree)
    local offset = c:u64(tree, "offset")
    local region, count = c:u32(tree, "region"), c:u32(tree, "count")

    c:rest(tree, "data")
    return string.format("%s offset %s count %s", named(REGIONS, region),
                         hex(offset), count or "?")
end
payload[9] = region_access
payload[10] = region_access

local function dma_access(c, tree)
    local address, count = c:u64(tree, "address"), c:u64(tree, "count64")

    c:rest(tree, "data")
    return string.format("%s count %s", hex(address),
                         count and tostring(count) or "?")
end
payload[11] = dma_access
payload[12] = dma_access

payload[13] = function()
    return ""
end

payload[15] = function(c, tree, reply)
    local count = c:u64(tree, "count64")

    for _ = 1, not reply and count and count:tonumber() or 0 do
        if c:captured() < 24 then
            c:room(tree, 24)
            break
        end
        local branch = tree:add(vfio_user, c.tvb(c.at, 24), "Write")
        local offset = c:u64(branch, "offset")
        local region, len = c:u32(branch, "region"), c:u32(branch, "count")
        branch:append_text(": " .. named(REGIONS, region) .. " offset " ..
                           hex(offset) .. " count " .. len)
        branch:add(f.data, c.tvb(c.at, math.min(len, 8)))
        c.at = c.at + 8
    end
    return count and tostring(count) .. " writes" or ""
end

local feature = {}

feature[1] = function(c, tree)
    c:flags(tree, "migration.flags",
            { "migration.stop_copy", "migration.p2p", "migration.pre_copy" },
            8)
end

feature[2] = function(c, tree)
    local state = c:u32(tree, "state")

    c:u32(tree, "data_fd")
    return " " .. named(STATES, state)
end

feature[6] = function(c, tree)
    c:u64(tree, "page_size")
    local nr = c:u32(tree, "ranges") or 0
    c:u32(tree, "reserved")
    while nr > 0 and not c.bad do
        c:u64(tree, "address")
        c:u64(tree, "length")
        nr = nr - 1
    end
end

feature[8] = function(c, tree)
    local address, length = c:u64(tree, "address"), c:u64(tree, "length")

    c:u64(tree, "page_size")
    c:rest(tree, "bitmap")
    return string.format(" %s+%s", hex(address), hex(length))
end

feature[9] = function(c, tree)
    c:u64(tree, "stop_copy_length")
end

payload[16] = function(c, tree)
    local ways = ""

    c:u32(tree, "argsz")
    local flags = c:flags(tree, "feature.flags",
                          { "feature.index", "feature.get", "feature.set",
                            "feature.probe" })
    if not flags then
        return ""
    end
    for _, bit in ipairs({ { 0x10000, " get" }, { 0x20000, " set" },
                           { 0x40000, " probe" } }) do
        ways = ways .. (has(flags, bit[1]) and bit[2] or "")
    end
    local index = flags % 0x10000
    local more = ""
    if c:left() > 0 and feature[index] then
        more = feature[index](c, tree) or ""
    end
    return named(FEATURES, index) .. ways .. more
end

local function mig_data(c, tree)
    c:u32(tree, "argsz")
    local size = c:u32(tree, "mig_data.size")

    c:rest(tree, "data")
    return string.format("size %s", size or "?")
end
payload[17] = mig_data
payload[18] = function(c, tree, reply)
    return reply and "" or mig_data(c, tree)
end

-- Requests and their replies -----------------------------------------------

-- Requests that wait for a reply; what was found of each frame
local waiting, found

function vfio_user.init()
    waiting, found = {}, {}
end

-- Ids belong to the sender of the command, on one socket.
local function key_of(msg, of_server)
    local interface = frame_interface()

    return string.format("%s/%s/%d", interface and interface.value or "",
                         of_server and "server" or "client", msg.id)
end

local function pair_up(msg, frame)
    local now = frame_time()

    now = now and now.value
    if not msg.reply then
        if not msg.no_reply then
            waiting[key_of(msg, msg.server)] = { frame = frame, time = now,
                                                 command = msg.command }
        end
        return
    end
    local key = key_of(msg, not msg.server)
    local request = waiting[key]
    if not request or request.command ~= msg.command then
        return
    end
    waiting[key] = nil
    found[frame] = { request = request.frame,
                     time = now and request.time and now - request.time }
    found[request.frame] = { reply = frame }
end

local function show_pair(msg, frame, tree)
    local other = found[frame]

    if not other then
        if msg.reply then
            tree:add_proto_expert_info(stray)
        end
    elseif other.reply then
        tree:add(f.reply_in, other.reply):set_generated()
    else
        tree:add(f.request_in, other.request):set_generated()
        if other.time then
            tree:add(f.time, other.time):set_generated()
        end
    end
end

-- The message --------------------------------------------------------------

local function read_head(tvb, tree)
    local c = new_cursor(tvb, 0, HEAD, false)
    local branch = tree:add(vfio_user, tvb(0, HEAD), "Recording")
    local msg = { nr_fds = 0 }

    c:u8(branch, "capture.version")
    local flags = c:flags(branch, "capture.flags",
                          { "from_server", "twin", "big_endian" }, 1)
    msg.nr_fds = c:u8(branch, "fds")
    msg.server = has(flags, 1)
    msg.twin = has(flags, 2)
    msg.big = has(flags, 4)
    return msg
end

local function read_header(c, tree, msg)
    msg.id = c:u16(tree, "id")
    msg.command = c:u16(tree, "command")
    msg.size = c:u32(tree, "size")
    local flags = c:flags(tree, "flags", { "type", "no_reply", "is_error" })
    msg.error, msg.error_item = c:u32(tree, "error")
    if c.bad then
        return false
    end
    msg.kind = flags % 0x10
    msg.reply = msg.kind == 1
    msg.no_reply = has(flags, 0x10)
    msg.failed = has(flags, 0x20)
    return true
end

-- Whether the sizes fit; returns where the message ends.
local function check_size(tvb, tree, msg)
    local there = tvb:reported_len() - HEAD

    if msg.kind > 1 then
        tree:add_proto_expert_info(malformed, "Neither command nor reply")
    end
    if not COMMANDS[msg.command] then
        tree:add_proto_expert_info(malformed, "No such command")
    end
    if msg.size < HEADER then
        tree:add_proto_expert_info(malformed, "A message of " .. msg.size ..
                                   " bytes")
    elseif msg.size ~= there then
        tree:add_proto_expert_info(malformed, string.format(
            "A message of %d bytes, of which there are %d", msg.size, there))
    end
    if tvb:len() < tvb:reported_len() then
        tree:add_proto_expert_info(cut)
    end
    return HEAD + there
end

local function read_payload(c, tree, msg)
    local read = payload[msg.command]
    local text = ""

    if msg.failed or not read then
        c:rest(tree, "data")
        return text
    end
    text = read(c, tree, msg.reply)
    if not c.bad and c:left() > 0 then
        c:rest(tree, "data")
    end
    return text
end

local function describe(msg, text)
    local line = named(COMMANDS, msg.command) .. " " ..
                 (TYPES[msg.kind] or "?")

    line = line .. (text ~= "" and " " .. text or "")
    if msg.failed then
        line = line .. " error " .. named(ERRORS, msg.error)
    end
    if msg.nr_fds > 0 then
        line = line .. " [fds " .. msg.nr_fds .. "]"
    end
    return line .. (msg.no_reply and " (no reply)" or "")
end

local function set_columns(pinfo, msg, line)
    pinfo.cols.protocol = "vfio-user"
    pinfo.cols.src = msg.server and "server" or "client"
    pinfo.cols.dst = msg.server and "client" or "server"
    pinfo.cols.info = line
end

function vfio_user.dissector(tvb, pinfo, root)
    if tvb:len() < HEAD then
        return 0
    end
    local tree = root:add(vfio_user, tvb())
    local msg = read_head(tvb, tree)
    local c = new_cursor(tvb, HEAD, tvb:reported_len(), msg.big)
    if not read_header(c, tree, msg) then
        set_columns(pinfo, msg, "Part of a header")
        return tvb:len()
    end
    if not pinfo.visited then
        pair_up(msg, pinfo.number)
    end
    show_pair(msg, pinfo.number, tree)
    c.limit = check_size(tvb, tree, msg)
    if msg.failed then
        msg.error_item:add_proto_expert_info(refused, "Refused: " ..
                                             named(ERRORS, msg.error))
    end
    local line = describe(msg, read_payload(c, tree, msg))
    set_columns(pinfo, msg, line)
    tree:append_text(", " .. line)
    return tvb:len()
end
